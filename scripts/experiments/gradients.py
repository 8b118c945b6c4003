"""What is measured of a loss: how its expected gradient lies to that of its objective, its noise, its fixed point."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import torch

from textgym.exact import (
    Moments,
    Objective,
    TokenTree,
    expected_gradient,
    fixed_point,
    optimum_within,
    sampled_gradient,
)
from textgym.exact.gradients import Loss, Sampling
from textgym.matching import make_divergence


@dataclass(frozen=True)
class Case:
    """A loss to be judged.

    Attributes:
        table: where it stands.
        name: what it is called there.
        loss: what is judged.
        group_size: episodes of a group.
        gamma: discount of the objective that it claims.
        sampling: what really samples.
        num_groups: groups in a batch; None enumerates batches of one group, a number samples.
        followed: whether to its fixed point, where it is enumerated and not discounted.
    """

    table: str
    name: str
    loss: Loss
    group_size: int = 1
    gamma: float = 1.0
    sampling: Sampling | None = None
    num_groups: int | None = None
    followed: bool = True


@dataclass(frozen=True)
class Measured:
    """What was found of a case.

    Attributes:
        table: its table.
        name: its name.
        group_size: episodes of a group.
        num_groups: groups in a batch.
        cosine: of the expected gradient with that of the objective, at a policy that is away from the reference.
        cosine_error: standard error of `cosine` where batches were sampled.
        ratio: length of the expected gradient, in lengths of that of the objective.
        noise: standard deviation of a batch's gradient, in lengths of its mean.
        later: `cosine` at a policy that has moved on since it sampled.
        rests: whether there is a fixed point; None where none was looked for, as for sampled or discounted losses.
        distance: total variation of the fixed point from the optimum.
        regret: what the fixed point lacks of the objective's best value, in parts of what the reference lacks: above 1
            it is worse than the reference.
        kl: KL of the fixed point to the reference, in nats per episode.
        reward: its expected reward.
        beta: at which the optimum has this KL: what the loss in effect penalises with.
        below: how much more reward that optimum earns, in parts of the range of rewards.
    """

    table: str
    name: str
    group_size: int
    num_groups: int
    cosine: float
    ratio: float
    noise: float
    cosine_error: float | None = None
    later: float | None = None
    rests: bool | None = None
    distance: float | None = None
    regret: float | None = None
    kl: float | None = None
    reward: float | None = None
    beta: float | None = None
    below: float | None = None

    def as_json(self) -> dict[str, Any]:
        """All that is known, rounded to five digits."""
        return {
            key: float(f"{value:.5g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
            if value is not None
        }


def toy_objective(num_tokens: int, max_new_tokens: int, beta: float) -> Objective:
    """The objective of `TextGenToy-v0` of a size, with its reference."""
    env: Any = gym.make("TextGenToy-v0", num_tokens=num_tokens, max_new_tokens=max_new_tokens)
    tree = TokenTree.of(env)
    reference = torch.tensor(env.unwrapped.reference_logits)
    return Objective(tree, reference, tree.scores(env)["reward"], beta)


class Judge:
    """Measures losses at one policy, which is the reference with noise on its logits, and at their fixed points.

    Args:
        objective: what the losses claim to maximise.
        distance: standard deviation of the noise.
        step: that of what the policy has moved by since it sampled, in `Measured.later`.
        draws: sampled batches where a case is not enumerated.
        seed: of all that is drawn.
    """

    def __init__(self, objective: Objective, distance: float = 1.0, step: float = 0.3, draws: int = 400, seed: int = 0):
        self.objective, self.draws, self.seed = objective, draws, seed
        generator = torch.Generator().manual_seed(seed)
        shape = objective.reference.shape
        first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        self.policy = objective.tree.log_policy(objective.reference + distance * first)
        self.later = objective.tree.log_policy(self.policy + step * second)

    def measure(self, case: Case) -> Measured:
        """Measure a loss."""
        if case.num_groups is not None:
            return self._sampled(case)
        objective = self._objective(case.gamma)
        how: dict[str, Any] = {"group_size": case.group_size, "sampling": case.sampling}
        found = expected_gradient(objective, case.loss, self.policy, **how)
        later = expected_gradient(objective, case.loss, self.later, old_logits=self.policy, **how)
        about: dict[str, Any] = {"later": _cosine(-objective.gradient(self.later), later.mean)}
        if case.gamma == 1.0 and case.followed:
            try:
                rest = fixed_point(objective, case.loss, **how)
            except ValueError:
                about["rests"] = False
            else:
                about |= {"rests": True} | _about_fixed_point(objective, rest)
        exact = -objective.gradient(self.policy)
        return Measured(case.table, case.name, case.group_size, 1, *_compared(exact, found), **about)

    def _objective(self, gamma: float) -> Objective:
        o = self.objective
        return o if gamma == o.gamma else Objective(o.tree, o.reference_logits, o.rewards, o.beta, gamma)

    def _sampled(self, case: Case) -> Measured:
        """Batches of several groups, sampled; the cosine is corrected for the noise that is left in the mean."""
        objective, size, groups = self._objective(case.gamma), case.group_size, case.num_groups or 1
        found = sampled_gradient(objective, case.loss, self.policy, size, groups, self.draws, self.seed)
        assert found.draws is not None
        exact, draws = -objective.gradient(self.policy).flatten(), found.draws.flatten(1)
        left_out = (draws.sum(0) - draws) / (len(draws) - 1)  # (R, S (K + 1)) the mean without each draw
        noise = found.variance / len(draws)
        length = (found.mean.square().sum() - noise).clamp(min=1e-12).sqrt()
        cosines = left_out @ exact / exact.norm() / (left_out.square().sum(-1) - noise).clamp(min=1e-12).sqrt()
        error = ((len(draws) - 1) * cosines.var(correction=0)).sqrt()  # the jackknife's
        return Measured(
            case.table,
            case.name,
            size,
            groups,
            cosine=float(found.mean.flatten() @ exact / exact.norm() / length),
            ratio=float(length / exact.norm()),
            noise=float(found.variance**0.5 / length),
            cosine_error=float(error),
        )


def _about_fixed_point(objective: Objective, rest: torch.Tensor) -> dict[str, float]:
    """What `Measured` says of a fixed point, (S, K + 1)."""
    tree, best, reference = objective.tree, objective.optimum, objective.reference
    log_pi, log_a, rewards = tree.log_probs(rest), tree.log_probs(reference), tree.accumulate(objective.steps)
    kl, reward, top = float(tree.kl(rest, reference)), float(log_pi.exp() @ rewards), best.values[0]
    at_this_kl = optimum_within(max(kl, 0.0), log_a[None], rewards[None])
    return {
        "distance": float(make_divergence("total_variation").exact(log_pi, tree.log_probs(best.policy))),
        "regret": float((top - objective.value(rest)) / (top - objective.value(reference))),
        "kl": kl,
        "reward": reward,
        "beta": at_this_kl.beta,
        "below": (at_this_kl.reward - reward) / float(rewards.max() - rewards.min()),
    }


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


def _compared(exact: torch.Tensor, found: Moments) -> tuple[float, float, float]:
    """Cosine, ratio and noise."""
    length = found.mean.norm()
    return _cosine(exact, found.mean), float(length / exact.norm()), float(found.variance**0.5 / length)
