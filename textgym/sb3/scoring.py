"""Log-probabilities, entropies and log-normalizers of tokens from hidden states, a chunk of logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from textgym.language_models.forward import logits_of
from textgym.mdp import TextMDP
from textgym.sb3.distribution import TokenDistribution

LOGITS_PER_CHUNK = {"cpu": 2**25, "cuda": 2**28}
"""The most logits (tokens x V) that scoring or training holds at a time: 128 MiB and 1 GiB in float32."""


def score_tokens(
    model: Any,
    distribution: TokenDistribution,
    hidden: torch.Tensor,
    lengths: torch.Tensor,
    actions: torch.Tensor,
    truncate: bool = True,
    entropy_gradient: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies of chosen tokens, and the log-normalizers of the states they were chosen in.

    Under gradient, a chunk's logits are computed again in the backward pass, so that only one chunk's are ever there.

    Args:
        model: whose head is applied.
        distribution: what the logits become.
        hidden: (M, H), what each token was drawn from.
        lengths: (M,) completion tokens before it.
        actions: (M,) the tokens, none of them masked.
        truncate: see `TokenDistribution.log_probs`.
        entropy_gradient: whether the entropies are differentiated, too.

    Returns:
        log-probabilities, entropies and log-normalizers, (M,) float32 each. A log-normalizer is log sum_x exp(l_x)
        over the logits l that the distribution leaves, divided by the temperature.
    """

    def score(hidden: torch.Tensor, lengths: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = logits_of(model, hidden, distribution.mdp.vocab_size)
        log_probs = distribution.log_probs(logits, lengths, actions, truncate)  # (m, V)
        chosen = log_probs.gather(-1, actions[:, None]).squeeze(-1)
        chosen_logits = logits.gather(-1, actions[:, None]).squeeze(-1) / distribution.temperature
        log_probs = log_probs if entropy_gradient else log_probs.detach()
        return chosen, -(log_probs.exp() * log_probs).sum(-1), chosen_logits - chosen

    size = max(1, LOGITS_PER_CHUNK.get(hidden.device.type, 2**25) // distribution.mdp.vocab_size)
    if len(hidden) <= size:
        return score(hidden, lengths, actions)  # type: ignore[return-value]
    chunks = zip(hidden.split(size), lengths.split(size), actions.split(size), strict=True)
    terms = [checkpoint(score, *c, use_reentrant=False) if hidden.requires_grad else score(*c) for c in chunks]
    return tuple(torch.cat(term) for term in zip(*terms, strict=True))  # type: ignore[return-value]


def by_step(actions: torch.Tensor, mdp: TextMDP, *terms: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Numbers of the real tokens of completions, (M,) each, in their places, (B, T) float32; 0 at padding."""
    real = actions != mdp.pad_id
    return tuple(torch.zeros_like(actions, dtype=torch.float32).masked_scatter(real, term.float()) for term in terms)
