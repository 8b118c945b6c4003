"""Log-probabilities, entropies and log-normalizers of tokens from hidden states, a chunk of logits at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from textgym.language_models.distribution import TokenDistribution
from textgym.language_models.forward import logits_of
from textgym.mdp import TextMDP

LOGITS_PER_CHUNK = {"cpu": 2**25, "cuda": 2**28}
"""The most logits (tokens x V) that an evaluation or a training step holds at a time: 128 MiB and 1 GiB in float32."""


class TokenTerms(NamedTuple):
    """What a policy says of tokens that were drawn: of M tokens, or of whole episodes, (B, T) each and 0 at padding.

    Attributes:
        log_probs: log pi(x | s) of the tokens.
        entropies: of the distributions that they were drawn from, in nats.
        values: the value head's values of the states before them; 0 where there is no value head.
        log_normalizers: log sum_x exp l(s, x) over the logits l that the distribution leaves, divided by the
            temperature.
    """

    log_probs: torch.Tensor
    entropies: torch.Tensor
    values: torch.Tensor
    log_normalizers: torch.Tensor


def token_terms(
    model: Any,
    distribution: TokenDistribution,
    hidden: torch.Tensor,
    lengths: torch.Tensor,
    actions: torch.Tensor,
    truncate: bool = True,
    entropy_gradient: bool = True,
) -> TokenTerms:
    """The terms of chosen tokens; their values are 0, because only the head of the language model is applied.

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
        (M,) float32 each.
    """

    def terms_of(hidden: torch.Tensor, lengths: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = logits_of(model, hidden, distribution.mdp.vocab_size)
        log_probs = distribution.log_probs(logits, lengths, actions, truncate)  # (m, V)
        chosen = log_probs.gather(-1, actions[:, None]).squeeze(-1)
        chosen_logits = logits.gather(-1, actions[:, None]).squeeze(-1) / distribution.temperature
        log_probs = log_probs if entropy_gradient else log_probs.detach()
        return chosen, -(log_probs.exp() * log_probs).sum(-1), torch.zeros_like(chosen), chosen_logits - chosen

    size = max(1, LOGITS_PER_CHUNK.get(hidden.device.type, 2**25) // distribution.mdp.vocab_size)
    if len(hidden) <= size:
        return TokenTerms(*terms_of(hidden, lengths, actions))
    chunks = zip(hidden.split(size), lengths.split(size), actions.split(size), strict=True)
    parts = [checkpoint(terms_of, *c, use_reentrant=False) if hidden.requires_grad else terms_of(*c) for c in chunks]
    return TokenTerms(*(torch.cat(part) for part in zip(*parts, strict=True)))


def by_step(actions: torch.Tensor, mdp: TextMDP, terms: TokenTerms) -> TokenTerms:
    """Terms of the real tokens of completions, (M,) each, in their places, (B, T) float32; 0 at padding.

    Args:
        actions: (B, T) completions, padded.
        mdp: says what padding is.
        terms: of their M real tokens, row by row.
    """
    real = actions != mdp.pad_id
    zeros = torch.zeros_like(actions, dtype=torch.float32)
    return TokenTerms(*(zeros.masked_scatter(real, term.float()) for term in terms))
