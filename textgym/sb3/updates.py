"""One gradient step on whole episodes, in pieces whose gradients add up to those of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from textgym.language_models.forward import memory_advice
from textgym.sb3.buffer import Episodes
from textgym.sb3.policy import TokenPolicy

Normalization = Literal["token", "sequence", "sum"]

# A loss reads (episodes, values, log_probs, entropies), the last three (B, T) with gradient, 0 at padding. It gives
# each token's loss, (B, T), and statistics to log, (B, T) each; what it says at padding is ignored.
Loss = Callable[[Episodes, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def token_weights(mask: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """The weight of each token's loss in the loss of the batch.

    Args:
        mask: (B, T) bool, True at real tokens.
        normalization: `"token"`, the mean over all tokens of the batch; or `"sequence"`, the mean over episodes of
            their tokens' means, in which a token of a long episode counts less; or `"sum"`, the mean over episodes of
            their tokens' sums, which makes -A log pi(x) of each.

    Returns:
        (B, T) float32, 0 at padding.
    """
    if normalization == "token":
        return mask / mask.sum()
    if normalization == "sum":
        return mask / len(mask)
    return mask / mask.sum(-1, keepdim=True) / len(mask)


def accumulate_gradients(
    policy: TokenPolicy,
    episodes: Episodes,
    loss: Loss,
    *,
    on_policy: bool = False,
    ent_coef: float = 0.0,
    normalization: Normalization = "token",
    micro_batch_size: int | None = None,
) -> tuple[dict[str, float], torch.Tensor]:
    """Put the gradient of a loss, minus `ent_coef` times the entropy, into the policy's parameters.

    Args:
        policy: evaluated in pieces of at most `micro_batch_size` episodes.
        episodes: the batch.
        loss: see `Loss`.
        on_policy: whether the policy still is the one that sampled the episodes; the loss then finds this pass's
            log-probabilities as the old ones, so that ratios are exactly 1.
        ent_coef: weight of the entropy bonus, the mean over real tokens.
        normalization: how the tokens' losses become one, see `token_weights`.
        micro_batch_size: None lets the cost decide (`Episodes.pieces`).

    Returns:
        means over real tokens of the statistics, and of `loss` and `entropy`; and the log-probabilities, (E, T).

    Raises:
        FloatingPointError: the loss is not finite.
    """
    policy.optimizer.zero_grad()
    weights, means = token_weights(episodes.mask, normalization), token_weights(episodes.mask, "token")
    sums: dict[str, torch.Tensor] = {}
    all_log_probs = torch.zeros_like(episodes.log_probs)
    for index in episodes.pieces(micro_batch_size):
        piece = episodes.select(index)
        values, log_probs, entropies = policy.evaluate_episodes(
            piece.rows, piece.actions, entropy_gradient=ent_coef != 0
        )
        if on_policy:
            piece = piece.replace(log_probs=log_probs.detach())
        losses, statistics = loss(piece, values, log_probs, entropies)
        total = (losses * weights[index] - ent_coef * entropies * means[index])[piece.mask].sum()
        with memory_advice("lower micro_batch_size"):
            total.backward()
        all_log_probs[index] = log_probs.detach()
        sums["loss"] = sums.get("loss", 0) + total.detach()
        for name, values in {"entropy": entropies, **statistics}.items():
            sums[name] = sums.get(name, 0) + (values.detach() * means[index])[piece.mask].sum()
    logged = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
    if not math.isfinite(logged["loss"]):
        raise FloatingPointError(f"the loss is {logged['loss']}")
    return logged, all_log_probs


def apply_gradients(policy: TokenPolicy, max_grad_norm: float) -> float:
    """Clip the gradients to a norm and step; returns the norm before clipping.

    Raises:
        FloatingPointError: the gradient is not finite; the weights stay as they are.
    """
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradient is {norm}")
    policy.optimizer.step()
    return norm
