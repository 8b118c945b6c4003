"""Returns, advantages and baselines of batches of episodes: pure functions of tensors.

Notation: E episodes of up to T tokens; per-token arrays are 0 behind an episode's end. Where a partner speaks, `mask`
is False: a step leads from one action to the next one, over what the partner says between them.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

Baseline = Literal["none", "mean", "leave_one_out", "batch"]
Scale = Literal["group", "batch", "none"]


def returns_to_go(rewards: torch.Tensor, gamma: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """G_t = sum_{s >= t} gamma^(s - t) r_s of every step: (E, T) -> (E, T).

    Args:
        rewards: (E, T)
        gamma: discount factor.
        mask: (E, T) bool, True at actions; others have the next one's return. None where all tokens are actions.
    """
    returns = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        new = rewards[:, t] + gamma * running
        running = new if mask is None else new.where(mask[:, t], running)
        returns[:, t] = running
    return returns


def generalized_advantages(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, gae_lambda: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """A_t = sum_{s >= t} (gamma lambda)^(s - t) (r_s + gamma V_{s+1} - V_s), V = 0 at the end (Schulman et al. 2016).

    Args:
        rewards: (E, T)
        values: (E, T)
        gamma: discount factor.
        gae_lambda: 1 gives the return minus the value, 0 the one-step error.
        mask: (E, T) bool, True at actions; None where all tokens are.

    Returns:
        (E, T)
    """
    # with gamma = 0, the "return" of an action is its own value, and a partner's token has the next action's
    behind = values if mask is None else returns_to_go(values, 0.0, mask)
    next_values = torch.nn.functional.pad(behind[:, 1:], (0, 1))
    return returns_to_go(rewards + gamma * next_values - values, gamma * gae_lambda, mask)


def whiten(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1 over real tokens; (E, T), 0 at padding. A single token stays as it is."""
    real = advantages[mask]
    if len(real) < 2:
        return advantages
    return (advantages - real.mean()) / (real.std() + 1e-8) * mask


def baselines(returns: torch.Tensor, prompt_ids: torch.Tensor, kind: Baseline) -> torch.Tensor:
    """What is subtracted from each episode's return, or from each of its returns.

    Args:
        returns: (E,) whole-episode returns G_0, or (E, T), each column of which is compared for itself.
        prompt_ids: (E,) int64; episodes of one prompt are a group.
        kind: `"none"` (0), `"mean"` (the mean of the group; with n members it shrinks the gradient by 1 - 1/n),
            `"leave_one_out"` (the mean of the *other* members, which leaves the gradient unbiased; Kool et al. 2019,
            Ahmadian et al. 2024) or `"batch"` (the mean of all; REINFORCE++, Hu et al. 2025, arXiv 2501.03262).

    Returns:
        the shape of `returns`.

    Raises:
        ValueError: `kind` is unknown, or it compares the episodes of a group, and a group has only one.
    """
    if kind not in get_args(Baseline):
        raise ValueError(f"baseline is {kind!r}; accepted are {list(get_args(Baseline))}")
    if kind == "none":
        return torch.zeros_like(returns)
    if kind == "batch":
        return returns.mean(0).expand_as(returns)
    group, sizes = _groups(prompt_ids, f"baseline {kind!r}", " (baseline 'none' needs no groups)")
    sums = returns.new_zeros(len(sizes), *returns.shape[1:]).index_add_(0, group, returns)
    sizes = sizes.view(-1, *(1 for _ in returns.shape[1:]))
    if kind == "mean":
        return (sums / sizes)[group]
    return (sums[group] - returns) / (sizes[group] - 1)


def group_deviations(returns: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each episode's group, (E,): the root of the mean squared distance from its mean.

    Args:
        returns: (E,) whole-episode returns.
        prompt_ids: (E,) int64; episodes of one prompt are a group.
    """
    squared = (returns - baselines(returns, prompt_ids, "mean")) ** 2
    return baselines(squared, prompt_ids, "mean").sqrt()


def differ_in_group(returns: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
    """Whether the returns of each episode's group are not all the same, (E,) bool; of others nothing is learned.

    Args:
        returns: (E,) whole-episode returns.
        prompt_ids: (E,) int64; episodes of one prompt are a group.
    """
    _, group = prompt_ids.unique(return_inverse=True)
    empty = torch.zeros_like(returns)
    least, most = (empty.scatter_reduce(0, group, returns, end, include_self=False) for end in ("amin", "amax"))
    return (least < most)[group]


def best_of_group(returns: torch.Tensor, prompt_ids: torch.Tensor, keep: int) -> torch.Tensor:
    """Which episodes are the `keep` of their group with the highest returns, (E,) bool; of equals, the first ones.

    With the loss -log pi(x) of these alone, it is RAFT (Dong et al. 2023, arXiv 2304.06767): the policy is drawn to its
    own best-of-n.

    Args:
        returns: (E,) whole-episode returns.
        prompt_ids: (E,) int64; episodes of one prompt are a group.
        keep: how many; all of a group that has no more.
    """
    order = returns.argsort(stable=True, descending=True)
    order = order[prompt_ids[order].argsort(stable=True)]  # group by group, the best first
    first = torch.searchsorted(prompt_ids[order], prompt_ids[order])  # where each one's group begins
    chosen = torch.zeros_like(prompt_ids, dtype=torch.bool)
    chosen[order] = torch.arange(len(order), device=order.device) - first < keep
    return chosen


def likeliness_ranks(log_probs: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
    """The share of the group that is less likely than each episode, in [0, 1); equally likely ones count half.

    With it the unlikeliness reward (He et al. 2025, arXiv 2506.02355) is r (1 - coef * rank): a right text is worth the
    less, the more likely it was.

    Args:
        log_probs: (E,) of whole episodes.
        prompt_ids: (E,) int64; episodes of one prompt are a group.
    """
    _, group, sizes = prompt_ids.unique(return_inverse=True, return_counts=True)
    values, value = log_probs.unique(return_inverse=True)  # ascending
    places = group * len(values) + value  # group by group, the least likely first
    ordered = places.sort().values
    before, through = (torch.searchsorted(ordered, places, right=right) for right in (False, True))
    first = torch.searchsorted(ordered, group * len(values))
    return ((before + through - 1) / 2 - first) / sizes[group]  # itself left out


def normalized_sum(components: torch.Tensor, weights: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
    """The sum over components k of w_k (r_k - mean_k) / (deviation_k + 1e-4), both of the episode's group.

    So a component counts by its weight, however large its values are and however much they vary: the decoupled
    normalisation of GDPO (Liu et al. 2026, arXiv 2601.05242). Mean and deviation are over the episodes of the group to
    which the component applies; it adds nothing to the others.

    Args:
        components: (E, K), NaN where one does not apply.
        weights: w, (K,).
        prompt_ids: (E,) int64; episodes of one prompt are a group.

    Returns:
        (E,), of mean 0 in every group.

    Raises:
        ValueError: a group has only one episode.
    """
    group, sizes = _groups(prompt_ids, "per_component='normalize'")
    known = ~components.isnan()
    values = components.nan_to_num(nan=0.0)

    def means(summands: torch.Tensor) -> torch.Tensor:
        """The mean over the known entries of each group, 0 where there is none; (E, K) -> (E, K)."""
        sums, counts = (torch.zeros(len(sizes), *summands.shape[1:]).to(summands) for _ in range(2))
        sums.index_add_(0, group, summands * known)
        return (sums / counts.index_add_(0, group, known.to(summands)).clamp(min=1))[group]

    centred = (values - means(values)) * known
    return (centred / (means(centred**2).sqrt() + 1e-4)) @ weights


def _groups(prompt_ids: torch.Tensor, what: str, remark: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """The group of each episode, (E,), and the sizes of the groups, (groups,), of two or more episodes each."""
    _, group = prompt_ids.unique(return_inverse=True)
    sizes = group.bincount()
    if sizes.min() < 2:
        raise ValueError(
            f"{what} needs at least two episodes of every prompt, and {int((sizes < 2).sum())} of {len(sizes)} prompts "
            f"have one; make the env with num_generations=2 or more{remark}"
        )
    return group, sizes
