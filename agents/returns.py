"""Returns and baselines of batches of episodes: pure functions of tensors.

Notation: E episodes of up to T tokens; G_t = sum_{s >= t} gamma^(s - t) r_s.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

Baseline = Literal["none", "mean", "leave_one_out"]


def returns_to_go(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """G_t of every step: (E, T) rewards, 0 behind an episode's end -> (E, T)."""
    returns = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] + gamma * running
        returns[:, t] = running
    return returns


def baselines(returns: torch.Tensor, prompt_ids: torch.Tensor, kind: Baseline) -> torch.Tensor:
    """What is subtracted from each episode's return.

    Args:
        returns: (E,) whole-episode returns G_0.
        prompt_ids: (E,) int64; episodes of one prompt are a group.
        kind: `"none"` (0), `"mean"` (the mean of the group; with n members it shrinks the gradient by 1 - 1/n) or
            `"leave_one_out"` (the mean of the *other* members, which leaves the gradient unbiased; Kool et al. 2019,
            Ahmadian et al. 2024).

    Returns:
        (E,)

    Raises:
        ValueError: `kind` is unknown, or leave-one-out meets a group of one.
    """
    if kind not in get_args(Baseline):
        raise ValueError(f"baseline is {kind!r}; accepted are {list(get_args(Baseline))}")
    if kind == "none":
        return torch.zeros_like(returns)
    _, group = prompt_ids.unique(return_inverse=True)  # (E,)
    sizes = group.bincount()  # (groups,)
    sums = torch.zeros_like(sizes, dtype=returns.dtype).index_add_(0, group, returns)
    if kind == "mean":
        return (sums / sizes)[group]
    if sizes.min() < 2:
        raise ValueError(
            "baseline 'leave_one_out' needs at least two episodes of every prompt; make the env with "
            "num_generations=2 or more, or choose baseline='mean' or 'none'"
        )
    return (sums[group] - returns) / (sizes[group] - 1)
