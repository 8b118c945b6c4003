"""What a policy-gradient loss really does: its expected gradient, its noise and its fixed point, on a `TokenTree`.

A loss reads a batch of sampled episodes and gives one number. Here the batches are enumerated: every multiset of
outcomes that a group can be, weighed by its probability. So the expectation is exact for losses that compare the
episodes of a group, too, which no sum over single outcomes gives. Where there are too many groups, batches are sampled,
with standard errors. Gradients are by the logits of a tabular policy.

Left out: losses that read entropies, and more than one prompt, because the groups of one prompt do not meet another's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from math import comb, lgamma
from typing import Any, NamedTuple

import torch

from textgym.exact.objectives import Objective
from textgym.exact.tree import TokenTree

MAX_GROUPS = 2**18
"""The most groups that are enumerated."""
CELLS = 2**22
"""The most numbers that the gradients of the groups take at a time: 32 MiB."""
TOLERANCE, SHORTEST = 1e-4, 1e-6
"""A fixed point's natural gradient is so small, in parts of that at the start; or a step towards it, in nats."""
FARTHEST = 50.0
"""How much less likely than at the start an action becomes before the policy counts as deterministic, in nats."""
GROWTH = 1.3
"""Of the rate from one step to the next at most: where a gradient is scaled to a length, as in GRPO, it has a kink."""


class Batch(NamedTuple):
    """B sampled episodes of up to T tokens; float64, and 0 at padding, but for the ids.

    Attributes:
        actions: (B, T) int64 token ids, EOS included, padded.
        mask: (B, T) bool, True at tokens.
        log_probs: (B, T) of the policy; what a loss is differentiated by.
        old_log_probs: (B, T) of the policy that is said to have sampled them.
        reference_log_probs: (B, T).
        rewards: (B, T) what the env paid for each token.
        values: (B, T) of the contexts before the tokens, what is to come to the policy that sampled, its KL penalty
            included: what a perfect critic says.
        groups: (B,) int64; episodes with the same number are a group.
    """

    actions: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor
    old_log_probs: torch.Tensor
    reference_log_probs: torch.Tensor
    rewards: torch.Tensor
    values: torch.Tensor
    groups: torch.Tensor


Loss = Callable[[Batch], torch.Tensor]
"""A loss, (), to be minimised, differentiable by `log_probs`; the order of the episodes must not matter to it."""
Sampling = Callable[[torch.Tensor], torch.Tensor]
"""What really samples where a policy is said to: (S, K + 1) log-probabilities to (S, K + 1), such as top-p's."""


class Moments(NamedTuple):
    """The gradient of a loss over the batches that it may meet.

    Attributes:
        mean: (S, K + 1) by the logits of the policy.
        variance: the mean squared distance of a batch's gradient from the mean.
        draws: (R, S, K + 1) the gradients of sampled batches; None where all were enumerated.
    """

    mean: torch.Tensor
    variance: float
    draws: torch.Tensor | None = None


def expected_gradient(
    objective: Objective,
    loss: Loss,
    logits: Any,
    group_size: int = 1,
    old_logits: Any = None,
    sampling: Sampling | None = None,
) -> Moments:
    """The exact expectation of a loss' gradient over batches of one group, all of whose episodes are independent.

    Args:
        objective: says what the episodes are paid, and the reference.
        loss: reads batches of `group_size` episodes; of many such groups, too, where a few groups show that this is the
            mean of their losses, because it is faster.
        logits: (S, K + 1) of the policy.
        group_size: episodes of a group, n.
        old_logits: (S, K + 1) of the policy that sampled; None takes the policy.
        sampling: what it really sampled from; None takes it as it is.

    Raises:
        ValueError: there are more than `MAX_GROUPS` groups.
    """
    tree, count = objective.tree, comb(objective.tree.num_outcomes + group_size - 1, group_size)
    if count > MAX_GROUPS:
        raise ValueError(
            f"{tree.num_outcomes:,} outcomes make {count:,} groups of {group_size}, more than {MAX_GROUPS:,}; take a "
            "smaller group or tree, or sample (sampled_gradient)"
        )
    log_pi = tree.log_policy(logits)
    old = log_pi if old_logits is None else tree.log_policy(old_logits)
    log_q = tree.log_probs(old if sampling is None else sampling(old))  # (X,)
    groups = torch.tensor(list(combinations_with_replacement(range(tree.num_outcomes), group_size)))  # (M, n)
    counts = (groups[:, :, None] == groups[:, None]).sum(-1).double()  # (M, n) how often each member is there
    log_orders = lgamma(group_size + 1) - (torch.lgamma(counts + 1) / counts).sum(-1)  # n! / prod_x m_x!
    chances = (log_orders + log_q[groups].sum(-1)).exp()  # (M,)
    groups, chances = groups[chances > 0], chances[chances > 0]
    everything = _everything(objective, log_pi, old)
    weights = _weights(loss, everything, groups)
    mean, square = torch.zeros_like(log_pi), 0.0
    at_once = max(1, CELLS // log_pi.numel())
    for part, chance, weight in zip(groups.split(at_once), chances.split(at_once), weights.split(at_once), strict=True):
        found = _by_logits(tree, part, weight, log_pi)  # (m, S, K + 1)
        mean += torch.tensordot(chance, found, 1)
        square += float(chance @ found.flatten(1).square().sum(-1))
    return Moments(mean, max(0.0, square - float(mean.square().sum())))


def sampled_gradient(
    objective: Objective,
    loss: Loss,
    logits: Any,
    group_size: int = 1,
    num_groups: int = 1,
    draws: int = 200,
    seed: int = 0,
    old_logits: Any = None,
    sampling: Sampling | None = None,
) -> Moments:
    """The gradients of sampled batches of several groups, and their mean.

    Args:
        objective: as for `expected_gradient`, like what is not named here.
        loss: reads batches of `num_groups` x `group_size` episodes.
        logits: (S, K + 1) of the policy.
        group_size: episodes of a group.
        num_groups: groups of a batch.
        draws: batches, R.
        seed: of the draws.
        old_logits: (S, K + 1).
        sampling: what really sampled.
    """
    tree = objective.tree
    log_pi = tree.log_policy(logits)
    old = log_pi if old_logits is None else tree.log_policy(old_logits)
    chances = tree.log_probs(old if sampling is None else sampling(old)).exp()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(chances, draws * num_groups * group_size, True, generator=generator)
    everything = _everything(objective, log_pi, old)
    batches = drawn.view(draws, num_groups, group_size)
    weights = torch.stack([_gradient(loss, everything, groups) for groups in batches])
    table = _by_logits(tree, batches.flatten(1), weights.flatten(1, 2), log_pi)
    return Moments(table.mean(0), float(table.flatten(1).var(0).sum()), table)


def fixed_point(
    objective: Objective,
    loss: Loss,
    group_size: int = 1,
    sampling: Sampling | None = None,
    start: Any = None,
    steps: int = 500,
) -> torch.Tensor:
    """The policy that a loss comes to rest at when each step is on-policy: its expected gradient vanishes there.

    Followed is the natural gradient, which the logits of a context feel however rarely it is reached; it ends where
    the plain one does. The length of a step is Barzilai's and Borwein's (1988).

    Args:
        objective: as for `expected_gradient`, like what is not named here.
        loss: the loss.
        group_size: episodes of a group.
        sampling: what really samples.
        start: (S, K + 1) logits; None takes the reference.
        steps: at most.

    Returns:
        (S, K + 1) log-probabilities.

    Raises:
        ValueError: the loss makes the policy deterministic, or the gradient has not vanished after so many steps.
    """
    tree = objective.tree
    here = begun = tree.log_policy(objective.reference if start is None else start)
    rate, first, move, before = 1.0 / max(objective.beta, 0.1), 0.0, None, torch.zeros_like(here)
    for _ in range(steps):
        found = expected_gradient(objective, loss, here, group_size, sampling=sampling).mean
        force = -found / (_log_reach(tree, here)[:, None] + here).exp()  # (S, K + 1), of mean 0 in every context
        size = float(force.abs().max())
        first = first or size
        if (begun - here).max() > FARTHEST:
            raise ValueError("no fixed point: the loss makes the policy deterministic")
        if size <= TOLERANCE * first:
            return here
        if move is not None:
            secant = abs(float((move * move).sum() / (move * (before - force)).sum()))
            rate = min(secant, GROWTH * rate)
        rate = min(rate, 1.0 / size)
        move, before = rate * force, force
        if rate * size <= SHORTEST:
            return here
        here = tree.log_policy(here + move)
    raise ValueError(
        f"no fixed point in {steps} steps: the natural gradient is {size:.2g}, and was {first:.2g} at first"
    )


def _everything(objective: Objective, log_pi: torch.Tensor, old: torch.Tensor) -> Batch:
    """All outcomes, each once; batches are selections of them."""
    actions = objective.tree.outcomes
    return Batch(
        actions=actions,
        mask=actions != objective.tree.pad_id,
        log_probs=objective.tree.along(log_pi, actions).detach(),
        old_log_probs=objective.tree.along(old, actions),
        reference_log_probs=objective.tree.along(objective.reference, actions),
        rewards=objective.tree.along(objective.steps, actions),
        values=objective.tree.along(objective.evaluate(old).values, actions),
        groups=torch.arange(len(actions)),
    )


def _gradient(loss: Loss, everything: Batch, groups: torch.Tensor) -> torch.Tensor:
    """The gradient of the loss of a batch by its log-probabilities: (M, n) outcomes -> (M, n, T)."""
    batch = Batch(*(field[groups.flatten()] for field in everything))
    log_probs = batch.log_probs.requires_grad_()
    numbers = torch.arange(len(groups)).repeat_interleave(groups.shape[1])
    (weights,) = torch.autograd.grad(loss(batch._replace(groups=numbers)), log_probs)
    return (weights * batch.mask).view(*groups.shape, -1)


def _weights(loss: Loss, everything: Batch, groups: torch.Tensor) -> torch.Tensor:
    """The gradient of each group's own loss by the log-probabilities of its tokens: (M, n) outcomes -> (M, n, T).

    A loss that is a mean over groups gives them all in one call, and one that divides by the tokens of the batch those
    of equally many tokens; others are called for each group.
    """
    weights = everything.rewards.new_zeros(*groups.shape, everything.rewards.shape[1])
    tokens = everything.mask.sum(-1)[groups].sum(-1)  # (M,)
    for alike in (torch.zeros_like(tokens), tokens):
        for label in alike.unique():
            part = (alike == label).nonzero()[:, 0]
            found = _mean_over_groups(loss, everything, groups[part])
            if found is None:
                break
            weights[part] = found
        else:
            return weights
    return torch.cat([_gradient(loss, everything, group[None]) for group in groups])


def _mean_over_groups(loss: Loss, everything: Batch, groups: torch.Tensor) -> torch.Tensor | None:
    """The gradients of groups that are a batch together; None where a few of them have others when they are alone."""
    together = len(groups) * _gradient(loss, everything, groups)
    tried = torch.linspace(0, len(groups) - 1, min(len(groups), 4)).long()
    alone = torch.cat([_gradient(loss, everything, groups[i : i + 1]) for i in tried.tolist()])
    same = torch.allclose(together[tried], alone, 1e-4, 1e-5 * float(together.abs().max()))
    return together if same else None


def _by_logits(tree: TokenTree, groups: torch.Tensor, weights: torch.Tensor, log_pi: torch.Tensor) -> torch.Tensor:
    """What weights of log pi(a | s) make of the logits: sum of w grad log pi, (M, n) and (M, n, T) -> (M, S, K + 1)."""
    contexts = tree.along(torch.arange(tree.num_contexts), tree.outcomes).long()  # (X, T)
    cells = contexts * log_pi.shape[1] + tree.outcomes * (tree.outcomes != tree.pad_id)
    sums = weights.new_zeros(len(groups), log_pi.numel())
    sums = sums.scatter_add_(1, cells[groups].flatten(1), weights.flatten(1)).view(-1, *log_pi.shape)
    return sums - sums.sum(-1, keepdim=True) * log_pi.exp()


def _log_reach(tree: TokenTree, log_pi: torch.Tensor) -> torch.Tensor:
    """The log-probability of coming to each context: (S, K + 1) -> (S,)."""
    return tree.log_probs(log_pi)[: tree.num_contexts] - log_pi[:, -1]  # that of ending there, without the EOS
