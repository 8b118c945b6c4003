"""How far a policy is from a target, and Z, estimated from samples of any proposal, with standard errors.

Every number is a smooth function of weighted means over the sample. Its standard error is the infinitesimal jackknife's
(Efron 1982): with weights 1/n on n independent samples and dg/dw_i the derivative of the number g with respect to the
i-th weight, the variance is sum_i (dg/dw_i)^2 / n^2, where dg/dw_i is centred. Autograd gives the derivatives, so what
Z's own estimation adds is counted without a formula for each number. The same derivatives have the skewness that
`textgym.matching.intervals` corrects for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch.nn.functional import softplus

from textgym.matching.intervals import ANY, SHARE, Range, Z, interval, normal, shares, unseen, wilson
from textgym.matching.targets import Features

LIMITS: dict[str, Range] = {
    **dict.fromkeys(("kl_p_pi", "kl_pi_p", "kl_p_q", "kl_to_reference"), (0.0, math.inf)),
    **dict.fromkeys(("tv", "mass_outside"), SHARE),
    "js": (0.0, math.log(2)),
}
"""What the numbers of `estimate` can be; the others can be anything."""


class Estimate(NamedTuple):
    """A number with its standard error and its 95% interval, see `textgym.matching.intervals`; NaN is not known."""

    value: float
    standard_error: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def normal(cls, value: float, standard_error: float) -> Estimate:
        """A number whose error is normal: its interval is the value ∓ 1.96 standard errors."""
        return cls(value, standard_error, *normal(value, standard_error))

    @classmethod
    def mean_of(cls, values: torch.Tensor, limits: Range = ANY) -> Estimate:
        """The mean of independent values, (n,), which are known to lie within limits; NaN where there is no value."""
        x, binary = values.double(), not ((values != 0) & (values != 1)).any()
        found = cls.ratio_of(x, torch.ones_like(x), SHARE if binary else limits)
        return cls(*found[:2], *wilson(x.sum().item(), len(x))) if binary and len(x) > 1 else found

    @classmethod
    def ratio_of(cls, numerators: torch.Tensor, denominators: torch.Tensor, limits: Range = ANY) -> Estimate:
        """The ratio of the means of independent pairs, (n,) each, by the delta method.

        Args:
            numerators: of cases, such as sums over an episode's tokens.
            denominators: of the same cases, such as numbers of tokens.
            limits: within which the ratio of any case is known to lie.
        """
        x, y = numerators.double(), denominators.double()
        ratio = (x.sum() / y.sum()).item()
        error, (low, high) = interval(ratio, (x - ratio * y) / y.mean(), limits)
        if limits == SHARE and not math.isnan(error):
            low, high = shares(ratio + (x - ratio * y) / y.mean())
        elif math.isnan(low) and not math.isnan(error):
            low, high = unseen(ratio, len(x), limits)
        return cls(ratio, error, low, high)

    def interval(self) -> Range:
        """The 95% interval."""
        return self.low, self.high


@dataclass(frozen=True)
class WeightedSample:
    """n samples of a proposal q, and what is known of each; all (n,) float64.

    Attributes:
        log_pi: log-probabilities under the policy.
        log_a: the same under the reference.
        log_q: the same under the proposal that drew them.
        log_weights: log P - log a, see `textgym.matching.Target`.
        features: further numbers, whose means under the policy are wanted.
        prompts: (n,) int64, the prompt of each sample, 0..; all 0 where there is one.
    """

    log_pi: torch.Tensor
    log_a: torch.Tensor
    log_q: torch.Tensor
    log_weights: torch.Tensor
    features: Features
    prompts: torch.Tensor

    @property
    def log_p(self) -> torch.Tensor:
        """The log-probabilities log P under the target, which are not normalised, (n,)."""
        return self.log_a + self.log_weights

    def cpu(self) -> WeightedSample:
        """The same on the CPU, where many small steps are fastest."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "features"}
        features = {name: values.cpu() for name, values in self.features.items()}
        return WeightedSample(**{name: tensor.cpu() for name, tensor in tensors.items()}, features=features)


def estimate(
    sample: WeightedSample,
    log_z: torch.Tensor | None = None,
    log_z_errors: torch.Tensor | None = None,
    group: int = 1,
) -> dict[str, Estimate]:
    """What describes a policy on its way to a target: divergences in nats, means over prompts.

    Prompts whose Z is 0 so far are left out of everything that depends on the target, which is NaN where no prompt is
    left.

    Args:
        sample: of any proposal that is positive where the policy or the target is. Samples of the policy alone do not
            show what the policy has lost; those of a mixture with the reference do.
        log_z: (prompts,) log Z where it is known better than from this sample (`LogPartition.log_z`).
        log_z_errors: (prompts,) its standard errors; 0 where not given.
        group: every so many samples that stand together depend on each other, such as those of one prompt; groups count
            as independent.

    Returns:
        `kl_p_pi`, KL(p || pi); `kl_pi_p`, KL(pi || p), infinite where the policy has mass outside the target's support;
        `mass_outside`, that mass; `mass_seen`, the estimate of the mass of p that this sample could show, 1 but for
        noise, which needs a Z that is known from elsewhere; `tv`, total variation, in [0, 1]; `js`, Jensen-Shannon, in
        [0, log 2]; `kl_p_q`, KL(p || q); `kl_to_reference`, KL(pi || a);
        `log_z`, averaged over prompts; the features' means under the policy by name; and `effective_sample_size`, the
        number of samples of p that the sample is worth, (sum w)^2 / sum w^2 with w = p / q.

        Where `mass_seen` is more than 3 standard errors below 1, the sample is blind to a part of p, and KL(p || pi)
        and KL(p || q) are those of the other part: their standard errors and upper ends are infinite.

    Raises:
        ValueError: the samples cannot be parted into groups.
    """
    n, double = len(sample.log_pi), torch.float64
    if n % group:
        raise ValueError(f"{n} samples cannot be parted into groups of group={group}")
    weights = torch.full((n,), 1 / n, dtype=double, requires_grad=True)
    known = None if log_z is None else log_z.to(double).clone().requires_grad_()
    numbers = functionals(sample, weights, known)
    errors = torch.zeros_like(known) if known is not None and log_z_errors is None else log_z_errors
    result = {
        name: jackknife(number, weights, known, errors, group=group, limits=LIMITS.get(name, ANY))
        for name, number in numbers.items()
    }
    if log_z is not None and log_z_errors is not None:  # tv is no smooth function of Z
        more = tv_error(sample, log_z.to(double), log_z_errors.to(double))
        result["tv"] = jackknife(numbers["tv"], weights, group=group, limits=LIMITS["tv"], more=more)
    seen = result["mass_seen"]
    if 1 - seen.value > 3 * seen.standard_error + 1e-9:  # but for rounding, it is 1 where Z is this sample's own
        for name in ("kl_p_pi", "kl_p_q"):
            result[name] = result[name]._replace(standard_error=math.inf, high=math.inf)
    size = effective_sample_size(sample.log_p - sample.log_q)
    return result | {"effective_sample_size": Estimate(size)}


def jackknife(
    number: torch.Tensor,
    weights: torch.Tensor,
    known: torch.Tensor | None = None,
    errors: torch.Tensor | None = None,
    *,
    group: int = 1,
    limits: Range = ANY,
    more: float = 0.0,
) -> Estimate:
    """A number with its standard error, that of the infinitesimal jackknife.

    Args:
        number: a scalar, differentiable with respect to the weights.
        weights: (n,) 1 / n each, the samples' weights, with gradient.
        known: further numbers that it depends on, with gradient.
        errors: their standard errors.
        group: see `estimate`.
        limits: the number's range, to which its interval is cut; the number too, where both ends are finite.
        more: a further standard error.

    Returns:
        the standard error is NaN where the number is not finite, or there is one group.
    """
    value = number.item()
    if not (math.isfinite(value) and number.requires_grad):
        return Estimate(value)
    leaves = [weights] if known is None else [weights, known]
    influence, *rest = torch.autograd.grad(number, leaves, retain_graph=True, allow_unused=True)
    if rest and rest[0] is not None and errors is not None:
        more = math.hypot(more, math.sqrt((rest[0] * errors).square().nansum().item()))
    error, (low, high) = interval(value, influence.view(-1, group).mean(-1), limits, more)
    if all(map(math.isfinite, limits)):
        value = min(max(value, limits[0]), limits[1])
    return Estimate(value, error, low, high)


def effective_sample_size(log_weights: torch.Tensor) -> float:
    """(sum w)^2 / sum w^2, from (n,) log w: the number of equally weighted samples that say as much (Kong 1992)."""
    if torch.isneginf(log_weights).all():
        return 0.0
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp().item()


def functionals(sample: WeightedSample, weights: torch.Tensor, log_z: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The numbers of `estimate` as functions of the samples' weights, (n,), which sum to 1, and of log Z."""
    log_pi, log_a, log_q = (t.double() for t in (sample.log_pi, sample.log_a, sample.log_q))
    log_p = sample.log_p.double()
    if log_z is None:
        log_z = weighted_log_z(log_p - log_q, weights, sample.prompts)
    w_pi, w_p, z, usable = densities(sample, log_z)
    share = weights * usable / (weights * usable).sum()
    log_t = torch.where(log_pi == log_p, z, log_pi - log_p + z)  # not NaN where both are -inf

    def mean(density: torch.Tensor, values: torch.Tensor, over: torch.Tensor = share) -> torch.Tensor:
        """E of the values under p or pi: q's weighted mean, self-normalised."""
        return (over * density * torch.where(density > 0, values, 0.0)).sum() / (over * density).sum()

    outside = mean(w_pi, torch.isneginf(log_p).double())
    features = {name: mean(w_pi, values.double(), weights) for name, values in sample.features.items()}
    return {
        "kl_p_pi": mean(w_p, -log_t),
        "kl_pi_p": mean(w_pi, log_t),
        "mass_outside": outside,
        "mass_seen": (share * w_p).sum(),
        # E_q[max(pi - p, 0) / q] is half of E_q|pi - p| / q, and bounded where pi / q is, however rare p's samples are
        "tv": (share * (w_pi - w_p).clamp(min=0)).sum(),
        "js": mean(w_pi, jensen_shannon_terms(log_t)) / 2,
        "kl_p_q": mean(w_p, log_p - log_q - z),
        "kl_to_reference": mean(w_pi, log_pi - log_a, weights),
        "log_z": (share * z).sum(),
        **features,
    }


def densities(sample: WeightedSample, log_z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of each sample, (n,): pi / q, p / q, log Z of its prompt, and whether Z is known; 0 and False where it is not."""
    z = log_z[sample.prompts]
    usable = torch.isfinite(z)
    z = torch.where(usable, z, 0.0)
    w_pi, w_p = (log.double() - sample.log_q.double() for log in (sample.log_pi, sample.log_p))
    return w_pi.exp(), (w_p - z).exp() * usable, z, usable


def tv_error(sample: WeightedSample, log_z: torch.Tensor, errors: torch.Tensor) -> float:
    """The standard error that Z's brings into total variation, from the values at the ends of Z's 95% interval.

    Its derivative says less: near the target it is 0 where Z is too low, as all of p then seems to lie above pi.
    """

    def parts(z: torch.Tensor) -> torch.Tensor:
        w_pi, w_p, _, usable = densities(sample, z)
        terms = (w_pi - w_p).clamp(min=0) * usable / usable.sum()
        return torch.zeros_like(log_z).index_add(0, sample.prompts, terms)  # (prompts,)

    change = torch.maximum(*((parts(log_z + end * errors) - parts(log_z)).abs() for end in (Z, -Z)))
    return change.nan_to_num().square().sum().sqrt().item() / Z


def jensen_shannon_terms(log_t: torch.Tensor) -> torch.Tensor:
    """Numbers whose mean under pi is KL(p || m) + KL(pi || m), m = (p + pi) / 2, from log t = log pi/p: (n,) -> (n,).

    With u = p / pi, KL(p || m) = E_pi u (log 2 - log(1 + 1/u)). As E_pi u = 1, log 2 may stand there in place of
    u log 2. What is left, 2 log 2 - log(1 + u) - u log(1 + 1/u), grows with log u only. With u log 2 a sample would
    hardly ever show the outcomes that pi has nearly lost, nor would the standard error know of them.
    """
    near = log_t.clamp(-40, 40)  # beyond, u log(1 + 1/u) is 1 or 0 in float64
    return 2 * math.log(2) - softplus(-log_t) - (-near).exp() * softplus(near)


def weighted_log_z(log_ratios: torch.Tensor, weights: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """Log of each prompt's weighted mean of P / q, (prompts,); -inf where it is 0."""
    number, highest = int(prompts.max()) + 1, log_ratios.max()
    if torch.isneginf(highest):
        return highest.expand(number)
    sums = weights.new_zeros(number).index_add(0, prompts, weights * (log_ratios - highest).exp())
    totals = weights.new_zeros(number).index_add(0, prompts, weights)
    empty = sums == 0
    return torch.where(empty, -math.inf, (sums / totals).masked_fill(empty, 1.0).log() + highest)
