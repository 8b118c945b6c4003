"""Quasi-rejection sampling as functions of numbers: which beta, what share is accepted, how near the target it gets.

A sample x of a policy q stays with probability min(1, P(x) / (beta q(x))), so what stays follows p_beta, proportional
to min(P / beta, q) (Eikema et al. 2022, arXiv 2112.05702). The smaller the share that is accepted, which beta sets, the
nearer p_beta is to p = P / Z; where P <= beta q everywhere it is p itself, and the method is rejection sampling. All
functions read log P - log q at samples of q; `textgym.evaluation.sampling` draws them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from textgym.matching.estimates import LIMITS, Estimate, jackknife
from textgym.matching.intervals import SHARE


@dataclass(frozen=True)
class Acceptance:
    """What quasi-rejection sampling does at one beta, estimated from samples of the policy q.

    The distances have the names of `textgym.matching.estimate`: `tv`, the total variation distance to p; `kl_p_pi`,
    KL(p || .); and `kl_pi_p`, KL(. || p), in nats. They cannot count what q never shows: a mode of p that q has lost is
    in none of them, and in no accepted sample either.

    Attributes:
        log_beta: log of beta.
        proposals: samples of q behind the estimates.
        rate: the share of samples that is accepted, E_q min(1, P / (beta q)).
        before: distances of q itself; `kl_pi_p` is infinite where q has mass outside the target's support.
        after: distances of p_beta, whose support is within the target's.
    """

    log_beta: float
    proposals: int
    rate: Estimate
    before: dict[str, Estimate]
    after: dict[str, Estimate]


def log_acceptance(log_ratios: torch.Tensor, log_beta: float) -> torch.Tensor:
    """Log-probabilities of staying, min(0, log P - log q - log beta): (n,) log P - log q -> (n,); -inf where P is 0."""
    return (log_ratios - log_beta).clamp(max=0)


def find_log_beta(log_ratios: torch.Tensor, acceptance: float) -> float:
    """The log beta at which a wanted share of the samples is accepted, by bisection: the share falls as beta rises.

    Args:
        log_ratios: (n,) log P(x) - log q(x) of samples of q; -inf where P is 0.
        acceptance: the mean of min(1, P / (beta q)) over the samples.

    Raises:
        ValueError: the rate is not in (0, 1], or more than the share of samples with P > 0.
    """
    ratios = log_ratios.double()
    possible = ratios[ratios > -math.inf]
    if not 0 < acceptance <= 1:
        raise ValueError(f"acceptance is {acceptance}; it must be above 0 and at most 1")
    if acceptance * len(ratios) > len(possible):
        raise ValueError(
            f"acceptance={acceptance} is out of reach: P > 0 for {len(possible)} of {len(ratios)} samples of the "
            "policy; ask for less, or start from a policy nearer to the target"
        )
    low = possible.min().item()  # everything that can stay does
    high = possible.logsumexp(0).item() - math.log(len(ratios) * acceptance)  # the rate is at most Z / beta
    for _ in range(60):  # as fine as float64
        middle = (low + high) / 2
        enough = log_acceptance(ratios, middle).exp().mean().item() >= acceptance
        low, high = (middle, high) if enough else (low, middle)
    return low


def measure(log_ratios: torch.Tensor, log_beta: float) -> Acceptance:
    """Estimate the acceptance rate, and the distances to the target before and after.

    The standard errors are the infinitesimal jackknife's (see `textgym.matching.estimates`), so they count that Z
    and the rate are estimated from the same samples.

    Args:
        log_ratios: (n,) log P(x) - log q(x) of independent samples of q; -inf where P is 0.
        log_beta: log of beta.

    Raises:
        ValueError: P is 0 for all samples.
    """
    n, ratios, highest = len(log_ratios), log_ratios.double(), log_ratios.max().double()
    if highest == -math.inf:
        raise ValueError(f"P is 0 for all {n} samples of the policy; it must come nearer to the target first")
    weights = torch.full_like(ratios, 1 / n, requires_grad=True)
    log_r = ratios - highest - (weights @ (ratios - highest).exp()).log()  # log p / q
    log_accept = log_acceptance(ratios, log_beta)
    rate = weights @ log_accept.exp()

    before, after = (distances(log_r, log_s, weights) for log_s in (torch.zeros_like(ratios), log_accept - rate.log()))
    estimated = (
        {name: jackknife(number, weights, limits=LIMITS[name]) for name, number in found.items()}
        for found in (before, after)
    )
    return Acceptance(log_beta, n, jackknife(rate, weights, limits=SHARE), *estimated)


def distances(log_r: torch.Tensor, log_s: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Distances of a policy pi to p as means over a proposal q, with r = p / q and s = pi / q.

    TV = E_q |s - r| / 2, KL(p || pi) = E_q r log(r / s) and KL(pi || p) = E_q s log(s / r).

    Args:
        log_r: (n,) float64.
        log_s: (n,) float64, finite where p has mass.
        weights: (n,) float64 that sum to 1: 1/n for samples of q; q(x) for all outcomes x, which gives exact values.
    """
    on = log_r > -math.inf
    r, s, log_t = log_r[on].exp(), log_s[on].exp(), log_s[on] - log_r[on]
    outside = weights[~on] @ log_s[~on].exp()  # mass of pi where p has none
    kl_pi_p = weights[on] @ (s * log_t)
    return {
        "tv": (weights[on] @ (s - r).abs() + outside) / 2,
        "kl_p_pi": -(weights[on] @ (r * log_t)),
        "kl_pi_p": kl_pi_p if outside == 0 else weights.new_tensor(math.inf),
    }
