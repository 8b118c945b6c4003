"""The reward-KL frontier: the most reward that any policy earns at a KL to the reference, and how far a policy is off.

With prompts c that the env draws, texts x of the reference a, and the reward r(x), let

    L(t) = E_c log E_{x ~ a(.|c)} exp(t r(x)).

Of all policies within k nats of a, p_beta proportional to a exp(r / beta) earns the most, with one beta for all prompts
(Korbak et al. 2022, arXiv 2205.11275). Its KL is t L'(t) - L(t) and its reward L'(t), t = 1 / beta, so that

    R(k) = min_t (k + L(t)) / t   is the most reward within k nats, and
    K(r) = max_t t r - L(t)       the least KL at which r can be earned: each other's inverse.

Samples of the reference are enough to know L, where the weights exp(t r) leave many of them: `Frontier` refuses what
lies beyond. As t is where the two are stationary, only the error of L counts: that of K(r) is L's, that of R(k) beta
times it. Left out: rewards that none of the samples shows, which an estimate cannot know of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from textgym.matching.estimates import Estimate
from textgym.matching.intervals import Z, t_quantile

SMALLEST_SIZE = 10.0
"""Where the frontier ends: samples per prompt that the weights leave, the harmonic mean over prompts, of 64 or fewer.

Of n > 64 it is sqrt(n / 64) times as many: the further a frontier reaches, the rarer are the texts that it hangs on.
"""
SMALLEST_KL = 1e-3
"""Below this KL, in nats per text, a policy counts as the reference."""
TILTS = 1e-4, 1e4
"""The least and the largest t, in standard deviations of the reward."""
HALVINGS = 30
"""Of the logarithm of that range."""
MOST = 1 - 1e-12
"""The largest weight of a sample that is left out."""


class OutOfRangeError(ValueError):
    """The samples of a reference do not reach as far as what was asked of its frontier."""


class Point(NamedTuple):
    """A point of the frontier.

    Attributes:
        beta: reward per nat.
        kl: KL(p_beta || a) in nats per text, mean over prompts.
        reward: that p_beta earns.
        standard_error: of log Z, and so of the least KL for this reward; times beta, of the reward at this KL.
    """

    beta: float
    kl: float
    reward: float
    standard_error: float


class Frontier:
    """The most reward at each KL to a reference, from its samples or from all outcomes.

    The logarithm of a mean of n samples errs low, by about (1 / n_eff - 1 / n) / 2 with n_eff = 1 / sum w^2 for the
    weights w. The jackknife that leaves one sample out takes this off, and gives the standard error:

        log Z = log mean exp(t r) - (n - 1) mean_i l_i,     l_i = log(1 - w_i) + log(n / (n - 1)).

    Attributes:
        start: the reference's own reward.
        limit: the last point that the samples support: of the largest t at which the harmonic mean of n_eff over
            prompts is large enough (`SMALLEST_SIZE`).
        is_whole: whether the frontier ends there for everybody, because p_beta has only the best texts left.

    Args:
        rewards: (C, n) of n texts of the reference for each of C prompts, which are all different.
        log_a: (C, n) their log-probabilities, where they are all there are; None for independent samples.
        num_prompts: how many prompts the env draws from, where they are finitely many; with all of them among the C,
            the choice of prompts brings no error.

    Raises:
        ValueError: rewards that are not finite or no table, fewer than two samples, more prompts than there are, or
            rewards that are all alike, where there is nothing to gain.
    """

    def __init__(self, rewards: torch.Tensor, log_a: torch.Tensor | None = None, num_prompts: int | None = None):
        if rewards.ndim != 2 or not rewards.isfinite().all():
            raise ValueError(f"rewards must be a finite table (prompts, texts), not of shape {tuple(rewards.shape)}")
        prompts, n = rewards.shape
        if log_a is None and n < 2:
            raise ValueError(f"{n} sample of a prompt shows no spread; take two or more")
        if num_prompts is not None and prompts > num_prompts:
            raise ValueError(f"rewards are of {prompts} prompts, and there are only {num_prompts}")
        self.is_sampled, self.rewards, self.num_prompts = log_a is None, rewards.double().cpu(), num_prompts
        self.log_a = torch.full_like(self.rewards, -math.log(n)) if log_a is None else log_a.double().cpu()
        spread = (self.rewards - self._means()[:, None]).square().mul(self.log_a.exp()).sum(-1).mean().sqrt().item()
        if not spread > 0:
            raise ValueError("all texts of a prompt have the same reward; there is nothing to gain on this frontier")
        self._tilts = TILTS[0] / spread, TILTS[1] / spread
        self.start = self._means().mean().item()
        self.is_whole = self._is_supported(self._tilts[1])
        if not self.is_whole:
            self._tilts = self._tilts[0], _last(self._is_supported, *self._tilts)
        self.limit = self._point(self._tilts[1])

    def at(self, beta: float) -> Point:
        """The point of p_beta.

        Raises:
            OutOfRangeError: the samples do not support it.
        """
        if not 1 / self._tilts[1] <= beta:
            raise OutOfRangeError(f"beta={beta:g} is below {1 / self._tilts[1]:.3g}; {self.range}")
        return self._point(1 / beta)

    def reward_within(self, kl: float) -> Estimate:
        """The most reward that a policy earns within `kl` nats of the reference.

        Raises:
            OutOfRangeError: the samples do not support it.
            ValueError: the KL is negative.
        """
        point = self._within(kl)
        return self._estimate(point.reward, point.beta * point.standard_error)

    def least_kl(self, reward: float) -> Estimate:
        """The least KL, in nats per text, at which a policy earns `reward`; 0 where the reference does.

        Raises:
            OutOfRangeError: the samples do not support it, or no policy earns it.
        """
        point = self._earning(reward)
        return self._estimate(point.kl, point.standard_error)

    def share(self, rewards: torch.Tensor, kls: torch.Tensor) -> Estimate:
        """The share of the attainable reward at a policy's KL: its gain over the reference, by the most possible one.

        Args:
            rewards: (E,) of independent texts of the policy, or means of independent trainings.
            kls: (E,) log pi - log a of the same texts or trainings.

        Returns:
            the standard error counts both samples; NaN for E = 1.

        Raises:
            OutOfRangeError: their mean KL is practically 0, or the samples do not support it.
        """
        reward, kl = _means_of_moved(rewards, kls)
        point = self._within(kl)
        most = point.reward - self.start
        share, beta = (reward - self.start) / most, point.beta
        variance = _variance_of_mean(rewards - share * beta * kls)
        variance += self._variance(point, -share * beta, share - 1)
        return self._estimate(share, math.sqrt(variance) / most)

    def times_least(self, rewards: torch.Tensor, kls: torch.Tensor) -> Estimate:
        """How many times the least KL for its reward a policy's KL is.

        Args:
            rewards: (E,) as for `share`.
            kls: (E,) as for `share`.

        Raises:
            OutOfRangeError: their mean KL is practically 0, their mean reward is not above the reference's, or the
                samples do not support it.
        """
        reward, kl = _means_of_moved(rewards, kls)
        if not reward > self.start:
            raise OutOfRangeError(f"the reward is {reward:.3g}; the reference itself earns {self.start:.3g}")
        point = self._earning(reward)
        times = kl / point.kl
        variance = _variance_of_mean(kls - times / point.beta * rewards) + self._variance(point, times, 0.0)
        return self._estimate(times, math.sqrt(variance) / point.kl)

    def curve(self, points: int = 60) -> list[Point]:
        """Points from the reference's KL of nearly 0 to the limit, evenly spaced in KL."""
        return [self._within(kl) for kl in np.linspace(0, self.limit.kl, points + 1)[1:].tolist()]

    @property
    def range(self) -> str:
        """How far the frontier is known, in words."""
        prompts, n = self.rewards.shape
        where = f"KL {self.limit.kl:.2f} nats and reward {self.limit.reward:.3f}"
        if self.is_whole:
            return f"the frontier ends at {where}"
        return f"{n} samples of each of {prompts} prompts support the frontier up to {where}"

    def _estimate(self, value: float, standard_error: float) -> Estimate:
        """A number with Student's interval where prompts were chosen, of which a few do not show how they differ."""
        prompts = len(self.rewards)
        width = standard_error * (Z if prompts in (1, self.num_prompts) else t_quantile(prompts - 1))
        return Estimate(value, standard_error, value - width, value + width)

    def _within(self, kl: float) -> Point:
        if not kl >= 0:
            raise ValueError(f"kl is {kl}; it must be at least 0")
        if kl > self.limit.kl:
            if self.is_whole:
                return self.limit
            raise OutOfRangeError(f"a KL of {kl:.2f} nats is out of range: {self.range}")
        return self._point(_last(lambda t: self._kl_and_reward(t)[0] <= kl, *self._tilts))

    def _earning(self, reward: float) -> Point:
        if reward > self.limit.reward or math.isnan(reward):
            raise OutOfRangeError(f"a reward of {reward:.3f} is out of range: {self.range}")
        return self._point(_last(lambda t: self._kl_and_reward(t)[1] <= reward, *self._tilts))

    def _means(self) -> torch.Tensor:
        """(C,) the reference's reward for each prompt."""
        return (self.log_a.exp() * self.rewards).sum(-1)

    def _tilted(self, t: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log Z, (C,), the weights a exp(t r) / Z, (C, n), and log Z without one sample less that with all, (C, n)."""
        log_masses, n = self.log_a + t * self.rewards, self.rewards.shape[1]
        log_z = log_masses.logsumexp(-1)
        weights = (log_masses - log_z[:, None]).exp()
        if not self.is_sampled:
            return log_z, weights, torch.zeros_like(weights)
        without = torch.log1p(-weights.clamp(max=MOST)) + math.log(n / (n - 1))
        return log_z - (n - 1) * without.mean(-1), weights, without

    def _is_supported(self, t: float) -> bool:
        least = SMALLEST_SIZE * max(1.0, self.rewards.shape[1] / 64) ** 0.5
        return not self.is_sampled or bool(self._tilted(t)[1].square().sum(-1).mean() <= 1 / least)

    def _kl_and_reward(self, t: float) -> tuple[float, float]:
        """KL and reward of the point, t L'(t) - L(t) and L'(t)."""
        log_z, weights, _ = self._tilted(t)
        rewards, n = (weights * self.rewards).sum(-1), self.rewards.shape[1]
        if self.is_sampled:  # w' = w (r - E_w r)
            odds = weights / (1 - weights.clamp(max=MOST))
            rewards = rewards + (n - 1) / n * (odds * (self.rewards - rewards[:, None])).sum(-1)
        reward = rewards.mean().item()
        return t * reward - log_z.mean().item(), reward

    def _point(self, t: float) -> Point:
        point = Point(1 / t, *self._kl_and_reward(t), 0.0)
        return point._replace(standard_error=math.sqrt(self._variance(point, 1.0, 0.0)))

    def _variance(self, point: Point, of_log_z: float, of_mean: float) -> float:
        """The variance of a weighted sum of the estimates of E_c log Z and E_c E_a r.

        Of C of N prompts with n samples each it is (1 - C/N) s_b^2 / C + (C/N) s_w^2 / (n C), s_b^2 between prompts and
        s_w^2 within them (Cochran 1977, eq. 10.15).
        """
        if not self.is_sampled:
            return 0.0
        prompts, n = self.rewards.shape
        log_z, _, without = self._tilted(1 / point.beta)
        influences = (n - 1) * (without.mean(-1, keepdim=True) - without)  # the jackknife's pseudo-values, centred
        within = of_log_z * influences + of_mean * (self.rewards - self._means()[:, None])
        variance = within.square().sum(-1).mean().item() / (n - 1) / n / prompts
        chosen = prompts / self.num_prompts if self.num_prompts else 0.0
        if chosen == 1:
            return variance
        between = _variance_of_mean(of_log_z * log_z + of_mean * self._means())
        return (1 - chosen) * between + chosen * variance


def _means_of_moved(rewards: torch.Tensor, kls: torch.Tensor) -> tuple[float, float]:
    """The means of rewards and KLs, once the policy is known to differ from the reference by more than rounding."""
    reward, kl = rewards.double().mean().item(), kls.double().mean().item()
    if not kl > SMALLEST_KL:
        raise OutOfRangeError(f"the KL is {kl:.3g}; a policy that did not move has no distance from the frontier")
    return reward, kl


def _variance_of_mean(values: torch.Tensor) -> float:
    """Of independent values, (n,); NaN for a single one."""
    return Estimate.mean_of(values).standard_error ** 2


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number in [low, high] for which something holds, which does so up to it and not beyond.

    Halves the range in its logarithm; `low` where it holds nowhere.
    """
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
