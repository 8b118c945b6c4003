"""How far a policy is from a target, and Z, estimated from samples of any proposal, with standard errors.

Every number is a smooth function of weighted means over the sample. Its standard error is the infinitesimal jackknife's
(Efron 1982): with weights 1/n on n independent samples and dg/dw_i the derivative of the number g with respect to the
i-th weight, the variance is sum_i (dg/dw_i)^2 / n^2, where dg/dw_i is centred. Autograd gives the derivatives, so what
Z's own estimation adds is counted without a formula for each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import softplus

from textgym.matching.targets import Features


class Estimate(NamedTuple):
    """A number and its standard error, which is NaN where it has none."""

    value: float
    standard_error: float

    @classmethod
    def mean_of(cls, values: torch.Tensor) -> Estimate:
        """The mean of independent values, (n,), with s / sqrt(n); a single one has no standard error."""
        x = values.double()
        return cls(x.mean().item(), (x.std() / math.sqrt(len(x))).item() if len(x) > 1 else math.nan)

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """The interval value -+ z standard errors, 95% by default."""
        return self.value - z * self.standard_error, self.value + z * self.standard_error


class LogPartition:
    """Z of each prompt as the running mean of P(x) / q(x) over all samples so far.

    It is unbiased for any proposals q that are positive where P is, also for changing ones.

    Args:
        num_prompts: prompts are numbered 0..num_prompts - 1.
    """

    def __init__(self, num_prompts: int):
        self.counts = np.zeros(num_prompts, np.int64)
        self.log_sums, self.log_squares = (np.full(num_prompts, -np.inf) for _ in range(2))

    def add(self, prompt_ids: torch.Tensor, log_ratios: torch.Tensor) -> None:
        """Count samples: (n,) prompts, and (n,) log P - log q, which may be -inf."""
        ids, values = prompt_ids.cpu().numpy(), log_ratios.double().cpu().numpy()
        np.add.at(self.counts, ids, 1)
        np.logaddexp.at(self.log_sums, ids, values)
        np.logaddexp.at(self.log_squares, ids, 2 * values)

    @property
    def log_z(self) -> torch.Tensor:
        """The estimates of log Z, (num_prompts,) float64; -inf where no sample had P > 0, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return torch.from_numpy(self.log_sums - np.log(self.counts))

    @property
    def standard_errors(self) -> torch.Tensor:
        """The standard errors of log Z, (num_prompts,): those of Z, relative to it; NaN where they are not known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            second = np.exp(self.log_squares - 2 * self.log_sums + np.log(self.counts))  # mean of squares / mean^2
            return torch.from_numpy(np.sqrt((second - 1).clip(0) / (self.counts - 1)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything, for a checkpoint."""
        return {name: torch.tensor(getattr(self, name)) for name in ("counts", "log_sums", "log_squares")}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises:
            ValueError: they are of another number of prompts.
        """
        if len(tensors["counts"]) != len(self.counts):
            raise ValueError(f"Z was estimated for {len(tensors['counts'])} prompts, the env has {len(self.counts)}")
        for name in ("counts", "log_sums", "log_squares"):
            setattr(self, name, tensors[name].cpu().numpy().copy())


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
    sample: WeightedSample, log_z: torch.Tensor | None = None, log_z_errors: torch.Tensor | None = None
) -> dict[str, Estimate]:
    """What describes a policy on its way to a target: divergences in nats, means over prompts.

    Samples count as independent. Prompts whose Z is 0 so far are left out of everything that depends on the target,
    which is NaN where no prompt is left.

    Args:
        sample: of any proposal that is positive where the policy or the target is.
        log_z: (prompts,) log Z where it is known better than from this sample (`LogPartition.log_z`).
        log_z_errors: (prompts,) its standard errors; 0 where not given.

    Returns:
        `kl_p_pi`, KL(p || pi); `kl_pi_p`, KL(pi || p), infinite where the policy has mass outside the target's support;
        `mass_outside`, that mass; `tv`, total variation; `js`, Jensen-Shannon, at most log 2; `kl_p_q`, KL(p || q);
        `kl_to_reference`, KL(pi || a);
        `log_z`, averaged over prompts; the features' means under the policy by name; and `effective_sample_size`, the
        number of samples of p that the sample is worth, (sum w)^2 / sum w^2 with w = p / q.
    """
    n, double = len(sample.log_pi), torch.float64
    weights = torch.full((n,), 1 / n, dtype=double, requires_grad=True)
    known = None if log_z is None else log_z.to(double).clone().requires_grad_()
    numbers = functionals(sample, weights, known)
    errors = torch.zeros_like(known) if known is not None and log_z_errors is None else log_z_errors
    result = {name: jackknife(number, weights, known, errors) for name, number in numbers.items()}
    size = effective_sample_size(sample.log_p - sample.log_q)
    return result | {"effective_sample_size": Estimate(size, math.nan)}


def jackknife(
    number: torch.Tensor,
    weights: torch.Tensor,
    known: torch.Tensor | None = None,
    errors: torch.Tensor | None = None,
) -> Estimate:
    """A number with its standard error, that of the infinitesimal jackknife.

    Args:
        number: a scalar, differentiable with respect to the weights.
        weights: (n,) 1 / n each, the samples' weights, with gradient.
        known: further numbers that it depends on, with gradient.
        errors: their standard errors.

    Returns:
        the standard error is NaN where the number is not finite, or n is 1.
    """
    n = len(weights)
    if not (torch.isfinite(number) and number.requires_grad) or n == 1:
        return Estimate(number.item(), math.nan)
    leaves = [weights] if known is None else [weights, known]
    influence, *rest = torch.autograd.grad(number, leaves, retain_graph=True, allow_unused=True)
    variance = (influence - influence.mean()).square().sum() / n / (n - 1)
    if rest and rest[0] is not None and errors is not None:
        variance = variance + (rest[0] * errors).square().nansum()
    return Estimate(number.item(), math.sqrt(variance.item()))


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
    z = log_z[sample.prompts]  # (n,)
    usable = torch.isfinite(z)
    z = torch.where(usable, z, 0.0)
    share = weights * usable / (weights * usable).sum()
    w_pi, w_p = (log_pi - log_q).exp(), (log_p - log_q - z).exp() * usable
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
        # E_q[max(pi - p, 0) / q] is half of E_q|pi - p| / q, and bounded where pi / q is, however rare p's samples are
        "tv": (share * (w_pi - w_p).clamp(min=0)).sum(),
        "js": mean(w_pi, jensen_shannon_terms(log_t)) / 2,
        "kl_p_q": mean(w_p, log_p - log_q - z),
        "kl_to_reference": mean(w_pi, log_pi - log_a, weights),
        "log_z": (share * z).sum(),
        **features,
    }


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
