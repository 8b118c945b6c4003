"""One gradient step on whole episodes, in micro-batches whose gradients add up to those of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from textgym.language_models.forward import memory_advice
from textgym.language_models.log_probs import TokenTerms
from textgym.language_models.token_model import TokenModel
from textgym.training import distributed
from textgym.training.episodes import Episodes
from textgym.training.terms import terms_of_group

Normalization = Literal["token", "sequence", "sum", "constant"]

Loss = Callable[[Episodes, TokenTerms], tuple[torch.Tensor, dict[str, torch.Tensor]]]
"""Reads a micro-batch of B episodes and the policy's terms for it, with gradient; gives each token's loss, (B, T), and
statistics to log, (B, T) each. What it says at padding is ignored."""


def token_weights(mask: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """The weight of each token's loss in the loss of the batch.

    Args:
        mask: (B, T) bool, True at real tokens.
        normalization: `"token"`, the mean over all tokens of the batch; or `"sequence"`, the mean over episodes of
            their tokens' means, in which a token of a long episode counts less; or `"sum"`, the mean over episodes of
            their tokens' sums, which makes -A log pi(x) of each; or `"constant"`, that divided by T, the length limit
            (Dr. GRPO, Liu et al. 2025, arXiv 2503.20783).

    Returns:
        (B, T) float32, 0 at padding.
    """
    if normalization == "token":
        return mask / mask.sum()
    if normalization in ("sum", "constant"):
        return mask / (len(mask) if normalization == "sum" else mask.numel())
    return mask / mask.sum(-1, keepdim=True) / len(mask)


def accumulate_gradients(
    token_model: TokenModel,
    episodes: Episodes,
    loss: Loss,
    *,
    on_policy: bool = False,
    ent_coef: float = 0.0,
    normalization: Normalization = "token",
    micro_batch_size: int | None = None,
    whole_groups: bool = False,
) -> tuple[dict[str, float], torch.Tensor]:
    """Put the gradient of a loss, minus `ent_coef` times the entropy, into the model's parameters.

    Args:
        token_model: evaluated in micro-batches of at most `micro_batch_size` episodes.
        episodes: the batch.
        loss: see `Loss`.
        on_policy: whether the policy still is the one that sampled the episodes; the loss then finds this pass's
            log-probabilities as the old ones, so that ratios are exactly 1.
        ent_coef: weight of the entropy bonus, the mean over real tokens.
        normalization: how the tokens' losses become one, see `token_weights`.
        micro_batch_size: None lets the cost decide (`Episodes.micro_batches`).
        whole_groups: whether the loss compares the episodes of a prompt, so that all of them must be in a micro-batch
            (`Episodes.whole_groups`).

    Where several processes train, each has the whole batch, and takes its share of it; gradient and results are sums.

    Returns:
        means over real tokens of the statistics, and of `loss` and `entropy`; and the log-probabilities, (E, T).

    Raises:
        FloatingPointError: the loss is not finite.
    """
    token_model.zero_grad()
    weights, means = token_weights(episodes.mask, normalization), token_weights(episodes.mask, "token")
    sums: dict[str, torch.Tensor] = {}
    all_log_probs = torch.zeros_like(episodes.log_probs)
    with_entropy = ent_coef != 0
    for index in parts_of(episodes, micro_batch_size, whole_groups, token_model.shares_prompts()):
        batch = episodes.select(index)
        if whole_groups:
            terms = terms_of_group(token_model, batch, with_entropy)
        else:
            terms = token_model.evaluate_episodes(batch.rows, batch.actions, with_entropy)
        if on_policy:
            batch = batch.replace(log_probs=terms.log_probs.detach())
        losses, statistics = loss(batch, terms)
        total = (losses * weights[index] - ent_coef * terms.entropies * means[index])[batch.mask].sum()
        with memory_advice("lower micro_batch_size"):
            total.backward()
        all_log_probs[index] = terms.log_probs.detach()
        sums["loss"] = sums.get("loss", 0) + total.detach()
        for name, values in {"entropy": terms.entropies, **statistics}.items():
            sums[name] = sums.get(name, 0) + (values.detach() * means[index])[batch.mask].sum()
    logged = distributed.sum_numbers(sums)
    if not math.isfinite(logged["loss"]):
        raise FloatingPointError(f"the loss is {logged['loss']}")
    distributed.sum_gradients(token_model.parameters())
    distributed.add_up([all_log_probs])
    return logged, all_log_probs


def parts_of(episodes: Episodes, size: int | None, whole_groups: bool, share_prompts: bool) -> list[torch.Tensor]:
    """Indices of the micro-batches of a batch, those that are this process's."""
    if whole_groups:
        processes = distributed.world_size()
        if processes > 1:
            size = min(size or len(episodes), -(-len(episodes) // processes))
        return episodes.whole_groups(size)[distributed.rank() :: processes]
    own = torch.arange(len(episodes), device=episodes.rows.device)[distributed.share(len(episodes))]
    return [own[index] for index in episodes.select(own).micro_batches(size, share_prompts)]


def apply_gradients(token_model: TokenModel, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> float:
    """Clip the gradients to a norm and step; returns the norm before clipping.

    Raises:
        FloatingPointError: the gradient is not finite; the weights stay as they are.
    """
    norm = torch.nn.utils.clip_grad_norm_(token_model.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradient is {norm}")
    optimizer.step()
    return norm
