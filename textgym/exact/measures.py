"""What a policy is worth, from the log-probabilities of all outcomes: exact expectations, pass@k, KL and optima.

Tables have outcomes in their last axis: (C, X) for C prompts, as `AnswerTree` gives them. What a function returns has
one number per prompt; the mean over prompts is what an env that draws them uniformly measures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from textgym.matching import Features, Target, make_target

LOG_BETAS = -12.0, 12.0
"""Where beta is looked for: powers of ten."""
HALVINGS = 50
"""Of that range."""


def expectation(log_probs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """E_pi of a function of the outcome: (..., X) and (..., X) -> (...)."""
    return (log_probs.exp() * values).sum(-1)


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """The entropy of the outcome in nats per text, (..., X) -> (...)."""
    return torch.special.entr(log_probs.exp()).sum(-1)


def kl(log_pi: torch.Tensor, log_a: torch.Tensor) -> torch.Tensor:
    """KL(pi || a) over outcomes, in nats per text: (..., X) and (..., X) -> (...); inf where pi alone has mass."""
    return (log_pi.exp() * (log_pi - log_a)).where(log_pi > -torch.inf, 0.0).sum(-1)


def pass_at(k: int, log_probs: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The chance that at least one of k outcomes is right, 1 - (1 - p)^k where p is the mass of the right ones.

    Args:
        k: independent samples, at least 1.
        log_probs: (..., X).
        right: (..., X) bool, such as `rewards >= 1`.

    Returns:
        (...).

    Raises:
        ValueError: k is below 1, or `right` is not boolean.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    if right.dtype != torch.bool:
        raise ValueError(f"right is {right.dtype}; say which outcomes count as right, such as rewards >= 1")
    chance = expectation(log_probs, right).clamp(max=1.0)
    return -torch.expm1(k * torch.log1p(-chance))


def best_of_log_probs(n: int, log_probs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """The distribution of the best of n outcomes, of which equally good ones are equally likely to be taken.

    With F(r) the chance of a reward of at most r, it is pi(x) (F(r)^n - P(reward < r)^n) / P(reward = r), within
    log n - (n - 1) / n nats of pi (Beirami et al. 2024, arXiv 2401.01879).

    Args:
        n: samples to choose from.
        log_probs: (C, X).
        rewards: (C, X).

    Returns:
        (C, X).
    """
    if n < 1:
        raise ValueError(f"n is {n}; it must be at least 1")
    rows = []
    for log_pi, values in zip(log_probs, rewards, strict=True):
        levels, level = values.unique(return_inverse=True)  # ascending
        mass = torch.zeros_like(levels, dtype=log_pi.dtype).index_add_(0, level, log_pi.exp())
        at_most = mass.cumsum(0) / mass.sum()
        chance = at_most**n - torch.cat([at_most.new_zeros(1), at_most[:-1]]) ** n
        rows.append(log_pi + (chance.log() - mass.log())[level].where(log_pi > -torch.inf, 0.0))
    return torch.stack(rows)


def target_log_probs(target: Any, log_a: torch.Tensor, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """A target distribution p(x | c) = a(x | c) w(x, c) / Z_c, each prompt with its own Z.

    Args:
        target: a `Target` or its JSON; what it leaves open is fitted over all prompts together.
        log_a: (C, X) of the reference.
        features: (C, X) each, as `AnswerTree.scores` gives them.

    Returns:
        log p, (C, X), and log Z, (C,).

    Raises:
        ValueError: a feature is missing, no outcome of some prompt has any mass, or the target cannot be fitted.
    """
    made: Target = make_target(target)
    if missing := [name for name in made.features if name not in features]:
        raise ValueError(f"the target reads the feature {missing[0]!r}; there are {list(features)}")
    flat = {name: features[name].flatten() for name in made.features}
    prompts = torch.arange(len(log_a)).repeat_interleave(log_a.shape[-1])
    made = made.fit(flat, log_a.flatten(), prompts)
    log_mass = log_a + made.log_weights(flat).view_as(log_a)
    log_z = log_mass.logsumexp(-1)
    if (empty := log_z == -torch.inf).any():
        raise ValueError(f"no outcome of prompt {int(empty.nonzero()[0])} has any mass, so its target is none")
    return log_mass - log_z[:, None], log_z


class Optimum(NamedTuple):
    """The most reward within a KL of the reference; means over prompts.

    Attributes:
        reward: expected reward.
        kl: KL(p || a) in nats per text.
        beta: reward per nat, at which p is a exp(r / beta) / Z; 0 where the KL suffices for the best outcomes alone.
    """

    reward: float
    kl: float
    beta: float


def optimum_within(kl_budget: float, log_a: torch.Tensor, rewards: torch.Tensor) -> Optimum:
    """The most reward that any policy earns whose KL to the reference is at most this, both as means over prompts.

    It is that of p_c = a_c exp(r / beta) / Z_c with one beta for all prompts, the one at which the KL is used up
    (Korbak et al. 2022, arXiv 2205.11275), so no agent at this KL can earn more.

    Args:
        kl_budget: in nats per text, not negative.
        log_a: (C, X) of the reference.
        rewards: (C, X).

    Raises:
        ValueError: the budget is negative or nan.
    """
    if not kl_budget >= 0:
        raise ValueError(f"kl_budget is {kl_budget}; it must be at least 0")
    levels, level = rewards.unique(return_inverse=True)
    if len(levels) < rewards.shape[-1]:  # p tilts outcomes of the same reward alike, so their mass is all that matters
        mass = torch.zeros(len(log_a), len(levels), dtype=log_a.dtype).scatter_add_(1, level, log_a.exp())
        log_a, rewards = mass.log(), levels.expand(len(log_a), -1)
    best = rewards.where(log_a > -torch.inf, -torch.inf).amax(-1, keepdim=True)
    log_best = log_a.where(rewards == best, -torch.inf).logsumexp(-1)
    if kl_budget >= (most := -log_best.mean().item()):
        return Optimum(best.mean().item(), most, 0.0)

    def at(log_beta: float) -> Optimum:
        log_p = (log_a + (rewards - best) / 10**log_beta).log_softmax(-1)
        return Optimum(expectation(log_p, rewards).mean().item(), kl(log_p, log_a).mean().item(), 10**log_beta)

    low, high = LOG_BETAS
    for _ in range(HALVINGS):  # the KL falls as beta grows
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).kl > kl_budget else (low, middle)
    return at(high)
