"""What chooses tokens in a rollout: the policy's model, a frozen one, or several of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from textgym.language_models.decoder import Decoder
from textgym.language_models.distribution import choose
from textgym.language_models.forward import logits_of
from textgym.language_models.token_model import TokenModel
from textgym.mdp import TextMDP


class Actor(Protocol):
    """What chooses tokens: a `TokenModel`, or another distribution over the same MDP."""

    mdp: TextMDP

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""

    def reset(self) -> None:
        """Forget what was decoded: a rollout that begins depends on none before it, not even by rounding."""

    def __call__(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (N,), values (N, 1) and log-probabilities (N,) for observations (N, P + T)."""


class Alternating:
    """Several actors at one env: row i belongs to actor i mod n for ever.

    Args:
        actors: of one MDP.
    """

    def __init__(self, actors: Sequence[Actor]):
        self.actors, self.mdp, self.device = actors, actors[0].mdp, actors[0].device

    def reset(self) -> None:
        """Each actor forgets what it decoded."""
        for actor in self.actors:
            actor.reset()

    def __call__(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each actor's tokens, values and log-probabilities in its rows."""
        n = len(self.actors)
        parts = [actor(obs[i::n]) for i, actor in enumerate(self.actors)]
        wholes = tuple(part.new_empty(len(obs), *part.shape[1:]) for part in parts[0])
        for i, part in enumerate(parts):
            for whole, values in zip(wholes, part, strict=True):
                whole[i::n] = values
        return wholes  # type: ignore[return-value]


class ModelActor:
    """Chooses tokens as a frozen model would, under a token model's masks and temperature, without its truncation.

    Args:
        token_model: says how logits become a distribution, and the precision.
        model: a causal LM.
        context: what the model is to be run under.
    """

    def __init__(
        self, token_model: TokenModel, model: Any, context: Callable[[], AbstractContextManager[None]] = nullcontext
    ):
        self.mdp, self.device = token_model.mdp, token_model.device
        self._token_model, self._model, self._context = token_model, model, context
        self._decoder = Decoder(model, token_model.mdp)

    def reset(self) -> None:
        """Forget what was decoded."""
        self._decoder.reset()

    @torch.no_grad()
    def __call__(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (N,), zeros (N, 1) in place of values, and log-probabilities (N,)."""
        with self._context(), self._token_model.autocast():
            hidden, live = self._decoder.hidden(obs)
            logits = logits_of(self._model, hidden[live.to(hidden.device)], self.mdp.vocab_size)
        lengths = (obs[live][:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).sum(-1).to(logits.device)
        tokens, log_probs = choose(self._token_model.distribution.log_probs(logits, lengths, truncate=False), live)
        return tokens, log_probs.new_zeros(len(live), 1), log_probs
