"""f-divergences D_f(pi || p) by name, as functions of log t, where t = pi(x) / p(x).

    D_f(pi || p) = E_p[f(t)] + f'(inf) pi(p = 0)        gradient: E_pi[f'(t) grad log pi]

(Go et al. 2023, arXiv 2302.08215), so minimising it is a policy gradient with the pseudo-reward -f'(t). Adding
c (t - 1) to f leaves D_f as it is and shifts f' by c, so a pseudo-reward is known up to a constant; here it is always
the *centred* one, f'(1) - f'(t), which vanishes where pi = p. Everything works in log t: log t = +inf is p(x) = 0.
The terms p f(pi / p) are written so that no factor leaves the range of floats where the term itself does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch.nn.functional import relu, softplus

Function = Callable[[torch.Tensor], torch.Tensor]
Terms = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
DivergenceName = Literal[
    "forward_kl",
    "reverse_kl",
    "jensen_shannon",
    "total_variation",
    "chi2_forward",
    "chi2_reverse",
    "squared_hellinger",
    "alpha",
]


@dataclass(frozen=True)
class Divergence:
    """One f-divergence.

    Attributes:
        name: as in `make_divergence`.
        terms: (log pi, log p) -> p f(pi / p), of any shape; log pi may be -inf, log p is finite. f(1) = 0.
        pseudo_reward: log t -> f'(1) - f'(t), of any shape; exact at +inf.
        slope_at_infinity: f'(inf), what a unit of pi's mass costs where p = 0; `math.inf` where that is not allowed.
        growth: as t -> 0, where the policy has lost what p has, the pseudo-reward grows as t^-growth; 0 where it grows
            with log t at most.
        alpha: the parameter of `"alpha"`, else None.
    """

    name: str
    terms: Terms = field(repr=False)
    pseudo_reward: Function = field(repr=False)
    slope_at_infinity: float
    growth: float = 0.0
    alpha: float | None = None

    @property
    def finite_on_zeros(self) -> bool:
        """Whether D_f(pi || p) is finite where pi has mass and p has none."""
        return math.isfinite(self.slope_at_infinity)

    def weighted_pseudo_reward(self, log_weights: torch.Tensor, log_t: torch.Tensor) -> torch.Tensor:
        """(pi / q)(f'(1) - f'(t)), (n,), also where pi / q is below and the pseudo-reward above the range of floats.

        Args:
            log_weights: (n,) log pi - log q.
            log_t: (n,) log pi - log p.
        """
        if not self.growth:
            return log_weights.exp() * self.pseudo_reward(log_t)
        far = -300 / self.growth  # beyond, the pseudo-reward is proportional to t^-growth in float64
        excess = self.growth * (far - log_t).clamp(min=0)
        return (log_weights + excess).exp() * self.pseudo_reward(log_t.clamp(min=far))

    def exact(self, log_pi: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
        """D_f(pi || p) by summation over all outcomes, differentiable with respect to `log_pi`.

        Args:
            log_pi: (X,) log-probabilities of all outcomes.
            log_p: (X,) the same of the target; -inf where it has no mass.

        Returns:
            a scalar, inf where the divergence is.
        """
        support = log_p > -math.inf
        value = self.terms(log_pi[support], log_p[support]).sum()
        outside = log_pi[~support].exp().sum()
        return value + self.slope_at_infinity * outside if outside > 0 else value


def _relative(log_pi: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """Log t = log pi - log p; where pi is 0 the least float, whose product with pi is 0."""
    return (log_pi - log_p).clamp(min=torch.finfo(log_pi.dtype).min)


def _forward_kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return b.exp() * (b - a)


def _reverse_kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.exp() * _relative(a, b)


def _jensen_shannon(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    s, log_2 = _relative(a, b), math.log(2)
    return a.exp() * (log_2 - softplus(-s)) + b.exp() * (log_2 - softplus(s))  # to the mixture of both


def _total_variation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.maximum(a, b).exp() * -torch.expm1(-(a - b).abs()) / 2


def _chi2_forward(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    distance = (a - b).abs()
    return (b + distance).exp() * torch.expm1(-distance) ** 2  # (p - pi)^2 / pi


def _chi2_reverse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (b + 2 * relu(a - b)).exp() * torch.expm1(-(a - b).abs()) ** 2  # (pi - p)^2 / p


def _squared_hellinger(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.maximum(a, b).exp() * torch.expm1(-(a - b).abs() / 2) ** 2


def _alpha(alpha: float) -> Divergence:
    """Amari's family: (t^alpha - alpha t - 1 + alpha) / (alpha (alpha - 1)), its two ends by continuity."""
    if alpha == 0:
        return Divergence(
            "alpha", lambda a, b: _forward_kl(a, b) + a.exp() - b.exp(), lambda s: torch.expm1(-s), 1.0, 1.0, alpha
        )
    if alpha == 1:
        return Divergence(
            "alpha", lambda a, b: _reverse_kl(a, b) - a.exp() + b.exp(), lambda s: -s, math.inf, 0.0, alpha
        )

    def terms(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # where pi > p, by symmetry: alpha of (pi, p) is 1 - alpha of (p, pi)
        distance, power = (a - b).abs(), torch.where(a > b, a.new_tensor(1 - alpha), alpha)
        powers = torch.expm1(-power * distance) - power * torch.expm1(-distance)
        return torch.maximum(a, b).exp() * powers / (alpha * (alpha - 1))

    def pseudo_reward(log_t: torch.Tensor) -> torch.Tensor:
        return torch.expm1((alpha - 1) * log_t) / (1 - alpha)

    return Divergence("alpha", terms, pseudo_reward, 1 / (1 - alpha), 1 - alpha, alpha)


DIVERGENCES = {
    d.name: d
    for d in (
        Divergence("forward_kl", _forward_kl, lambda s: torch.expm1(-s), 0.0, 1.0),
        Divergence("reverse_kl", _reverse_kl, lambda s: -s, math.inf),
        Divergence("jensen_shannon", _jensen_shannon, lambda s: softplus(-s) - math.log(2), math.log(2)),
        Divergence("total_variation", _total_variation, lambda s: -s.sign() / 2, 0.5),
        Divergence("chi2_forward", _chi2_forward, lambda s: torch.expm1(-2 * s), 1.0, 2.0),
        Divergence("chi2_reverse", _chi2_reverse, lambda s: -2 * torch.expm1(s), math.inf),
        Divergence("squared_hellinger", _squared_hellinger, lambda s: torch.expm1(-s / 2), 1.0, 0.5),
    )
}
NAMES: tuple[str, ...] = get_args(DivergenceName)


def make_divergence(name: DivergenceName, alpha: float | None = None) -> Divergence:
    """A divergence D_f(pi || p) by name.

    Args:
        name: `"forward_kl"`, KL(p || pi), which GDC and DPG minimise; `"reverse_kl"`, KL(pi || p), which RLHF does;
            `"jensen_shannon"`, twice the Jensen-Shannon divergence; `"total_variation"`, half the L1 distance;
            `"chi2_forward"`, sum (p - pi)^2 / pi; `"chi2_reverse"`, sum (pi - p)^2 / p; `"squared_hellinger"`,
            sum (sqrt p - sqrt pi)^2; or `"alpha"`, Amari's (sum pi^alpha p^(1 - alpha) - 1) / (alpha (alpha - 1)).
        alpha: of `"alpha"`, in [0, 1]: 0 is the forward KL, 1 the reverse, 1/2 twice the squared Hellinger distance.

    Raises:
        ValueError: an unknown name, an alpha outside [0, 1], or one where there is none to set.
    """
    if name not in NAMES:
        raise ValueError(f"divergence is {name!r}; accepted are {list(NAMES)}")
    if name != "alpha":
        if alpha is not None:
            raise ValueError(f"alpha={alpha} belongs to the divergence 'alpha', not to {name!r}")
        return DIVERGENCES[name]
    if alpha is None or not 0 <= alpha <= 1:
        raise ValueError(f"the divergence 'alpha' needs alpha in [0, 1], not {alpha}")
    return _alpha(float(alpha))
