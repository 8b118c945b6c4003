"""What chooses tokens in a rollout: the policy, a frozen model, or several of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from textgym.language_models.decoder import Decoder
from textgym.language_models.forward import logits_of
from textgym.mdp import TextMDP
from textgym.sb3.distribution import choose
from textgym.sb3.policy import TokenPolicy


class Player(Protocol):
    """What chooses tokens: a `TokenPolicy`, or another distribution over the same MDP."""

    mdp: TextMDP

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def __call__(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (N,), values (N, 1) and log-probabilities (N,) for observations (N, P + T)."""


class Alternating:
    """Several players at one env: row i belongs to player i mod n for ever.

    Args:
        players: of one MDP.
    """

    def __init__(self, players: Sequence[Player]):
        self.players, self.mdp, self.device = players, players[0].mdp, players[0].device

    def __call__(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each player's tokens, values and log-probabilities in its rows."""
        n = len(self.players)
        parts = [player(obs[i::n]) for i, player in enumerate(self.players)]
        wholes = tuple(part.new_empty(len(obs), *part.shape[1:]) for part in parts[0])
        for i, part in enumerate(parts):
            for whole, values in zip(wholes, part, strict=True):
                whole[i::n] = values
        return wholes  # type: ignore[return-value]


class ModelPlayer:
    """Chooses tokens as a frozen model would, under a policy's masks and temperature, without its truncation.

    Args:
        policy: says how logits become a distribution, and the precision.
        model: a causal LM.
        context: what the model is to be run under.
    """

    def __init__(
        self, policy: TokenPolicy, model: Any, context: Callable[[], AbstractContextManager[None]] = nullcontext
    ):
        self.mdp, self.device = policy.mdp, policy.device
        self._policy, self._model, self._context = policy, model, context
        self._decoder = Decoder(model, policy.mdp)

    @torch.no_grad()
    def __call__(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (N,), zeros (N, 1) in place of values, and log-probabilities (N,)."""
        with self._context(), self._policy.autocast():
            hidden, live = self._decoder.hidden(obs)
            logits = logits_of(self._model, hidden[live.to(hidden.device)], self.mdp.vocab_size)
        lengths = (obs[live][:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).sum(-1).to(logits.device)
        tokens, log_probs = choose(self._policy.distribution.log_probs(logits, lengths, truncate=False), live)
        return tokens, log_probs.new_zeros(len(live), 1), log_probs
