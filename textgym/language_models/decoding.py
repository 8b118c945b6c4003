"""Cached decoding with weights that are being trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from textgym.language_models.decoder import Decoder
from textgym.language_models.precision import AutocastCopy
from textgym.mdp import TextMDP


class TrainedDecoders:
    """A decoder for each trunk of a policy; what was decoded with other weights is forgotten.

    Args:
        trunks: the language model first; in eval mode when they decode.
        mdp: the MDP of the observations.
        autocast: whether they run under bfloat16 autocast, and so decode with an `AutocastCopy`.
    """

    def __init__(self, trunks: Sequence[Any], mdp: TextMDP, autocast: bool):
        self._trunks, self._mdp, self._autocast = trunks, mdp, autocast
        self._parameters = [p for trunk in trunks for p in trunk.parameters()]
        self._steps, self._version = 0, -1
        self._copies: list[AutocastCopy] = []
        self._decoders: list[Decoder] = []

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the steps of an optimizer of the weights; fused optimizers do not count the weights' versions up."""
        optimizer.register_step_post_hook(self._count_step)

    @property
    def model(self) -> Any:
        """The language model that the hidden states are of; after the first call of `hidden`."""
        return self._decoders[0].model

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key-value caches."""
        return sum(decoder.cache_bytes for decoder in self._decoders)

    def hidden(self, observations: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The last hidden states, (N, H) of each trunk, and which rows have not ended, (N,), as `Decoder.hidden`."""
        self._follow_weights()
        parts = [decoder.hidden(observations) for decoder in self._decoders]
        return [hidden for hidden, _ in parts], parts[0][1]

    def reset(self) -> None:
        """Forget what was decoded."""
        for decoder in self._decoders:
            decoder.reset()

    def _count_step(self, *args: Any) -> None:
        self._steps += 1

    def _follow_weights(self) -> None:
        version = self._steps + sum(p._version for p in self._parameters)  # in-place updates of any kind count up
        if not self._decoders:  # not in the constructor: until now the trunks may have moved to another device
            if self._autocast:
                self._copies = [AutocastCopy(trunk) for trunk in self._trunks]
            models = [copied.model for copied in self._copies] or self._trunks
            self._decoders = [Decoder(model, self._mdp) for model in models]
        elif version != self._version:
            for copied in self._copies:
                copied.refresh()
            for decoder in self._decoders:
                decoder.reset()
        self._version = version
