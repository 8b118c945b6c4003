"""The value of a policy pi from episodes of a behaviour b, by importance sampling: functions of tensors.

With rho_u = pi(a_u | s_u) / b(a_u | s_u) and w_t = rho_0 ... rho_t, of episodes i = 1..n, all estimators are

    sum_t gamma^t [ sum_i w_t,i (r_t,i - q_t,i) / N_t  +  sum_i w_t-1,i v_t,i / N_t-1 ],    w_-1 = 1,

where N_t is n, or sum_i w_t,i in the self-normalised ones. An episode that has ended keeps its weight, so that the mean
of w_t is 1 at every t.

| name | | v and q | N_t | |
|---|---|---|---|---|
| `is` | importance sampling per sequence: the last weight at every t | 0 | n | unbiased |
| `wis` | the same, self-normalised | 0 | sum of weights | consistent |
| `pdis` | per decision (Precup, Sutton & Singh 2000) | 0 | n | unbiased |
| `wpdis` | the same, self-normalised at each t (CWPDIS in Thomas 2015) | 0 | sums of weights | consistent |
| `dr` | doubly robust (Jiang & Li 2016, arXiv 1511.03722) | V, Q | n | unbiased if V(s) = E_pi Q(s, a) |
| `wdr` | the same, self-normalised (Thomas & Brunskill 2016, arXiv 1604.00923) | V, Q | sums of weights | consistent |

V is a guess of the policy's values; a bad one costs variance only. Where no Q is known, Q(s, a) = V(s), for which the
condition holds whatever V is.

Every estimator is a smooth function of weighted means, so the standard error is the delta method's, in the form of the
infinitesimal jackknife (`textgym.matching.estimates`), and the interval is corrected for skewness
(`textgym.matching.intervals`). A bootstrap would draw the same weights again: it knows no more
of rare large ones, and costs a thousand times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, NamedTuple, get_args

import torch

from textgym.arguments import Count, Probability, Range, check_argument
from textgym.matching.estimates import Estimate, effective_sample_size, jackknife

Estimator = Literal["is", "wis", "pdis", "wpdis", "dr", "wdr"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
SampleSize = Annotated[float, Range(2)]
SMALLEST_SAMPLE = 50.0
"""The effective sample size below which an estimate is refused: so few hardly tell their own spread."""
MOST_DEVIATIONS = 5.0
"""Standard errors from 1 at which the mean of the weights shows that they are not those of the two policies."""


class NoOverlapError(ValueError):
    """The logged episodes do not say what the policy earns: they are too unlike those that it would write."""


class OffPolicyEstimate(NamedTuple):
    """A policy's value, as in an `Estimate`, and the number of episodes of its own that would say as much."""

    value: float
    standard_error: float
    low: float
    high: float
    effective_sample_size: float

    def interval(self) -> tuple[float, float]:
        """The 95% interval."""
        return self.low, self.high


@dataclass(frozen=True)
class OffPolicySample:
    """n logged episodes of up to T actions; (n, T) each, 0 behind an episode's end.

    Attributes:
        log_ratios: log pi(a_t | s_t) - log b(a_t | s_t); -inf where the policy never chooses what was logged.
        rewards: r_t.
        values: V(s_t), a guess of the policy's values; None where there is none.
        q_values: Q(s_t, a_t) of the actions that were taken; None takes V(s_t) for it.

    Raises:
        ValueError: no episode, shapes that differ, a ratio that is NaN or infinite, anything else that is not finite,
            or Q without V.
    """

    log_ratios: torch.Tensor
    rewards: torch.Tensor
    values: torch.Tensor | None = None
    q_values: torch.Tensor | None = None

    def __post_init__(self) -> None:
        """Check the tensors."""
        if self.log_ratios.ndim != 2 or not len(self.log_ratios):
            raise ValueError(f"log_ratios have shape {tuple(self.log_ratios.shape)}; they must be (n, T), n at least 1")
        if self.q_values is not None and self.values is None:
            raise ValueError("q_values are given without values; doubly robust estimates need V(s) = E_pi Q(s, a), too")
        for name in ("log_ratios", "rewards", "values", "q_values"):
            if (tensor := getattr(self, name)) is None:
                continue
            if tensor.shape != self.log_ratios.shape:
                raise ValueError(
                    f"{name} have shape {tuple(tensor.shape)}, log_ratios {tuple(self.log_ratios.shape)}; they belong "
                    "to the same (n, T) actions"
                )
            fine = tensor.isfinite() if name != "log_ratios" else tensor < torch.inf  # a weight may be 0
            if not fine.all():
                episode, step = (~fine).nonzero()[0].tolist()
                raise ValueError(f"{name} of episode {episode}, action {step}, is {tensor[episode, step].item()}")

    def masked(self, mask: torch.Tensor) -> OffPolicySample:
        """The same with zeros where the mask, (n, T), is False."""
        given = {f.name: x for f in fields(self) if (x := getattr(self, f.name)) is not None}
        return replace(self, **{name: torch.where(mask, x, 0.0) for name, x in given.items()})


def estimate_value(
    sample: OffPolicySample,
    estimator: Estimator = "wis",
    *,
    gamma: Probability = 1.0,
    group: Count = 1,
    min_effective_sample_size: SampleSize = SMALLEST_SAMPLE,
) -> OffPolicyEstimate:
    """The expected discounted return of the policy.

    Args:
        sample: what was logged.
        estimator: one of `ESTIMATORS`, see above.
        gamma: discount per action.
        group: every so many episodes that stand together depend on each other, such as those of one prompt; groups
            count as independent in the standard error.
        min_effective_sample_size: below it, the estimate is refused.

    Returns:
        the effective sample size is Kong's, (sum w)^2 / sum w^2, the least of all steps at which anything is weighted.

    Raises:
        NoOverlapError: the effective sample size is below the bound; or the mean of the weights is more than 5 standard
            errors from 1, because the behaviour cannot choose what the policy may (it was truncated by top-k or top-p,
            say), or because its log-probabilities are not those that the actions were drawn with.
        ValueError: a doubly robust estimator without values, or an argument that its annotation excludes.
    """
    check_argument("estimator", estimator, Estimator)
    check_argument("gamma", gamma, Probability)
    check_argument("group", group, Count)
    check_argument("min_effective_sample_size", min_effective_sample_size, SampleSize)
    if len(sample.rewards) % group or len(sample.rewards) == group:
        raise ValueError(f"{len(sample.rewards)} episodes cannot be parted into two or more groups of group={group}")
    log_weights, rest, values = _terms(sample, estimator)
    size = _effective_sample_size(log_weights, rest)
    if size < min_effective_sample_size:
        raise NoOverlapError(
            f"{estimator!r}: the effective sample size of {len(rest)} episodes is {size:.1f}, less than "
            f"{min_effective_sample_size:g}; log more episodes, of a behaviour that is nearer to the policy"
        )
    _check_mean(log_weights[:, -1].exp(), group)
    groups = len(rest) // group
    shares = torch.full((groups,), 1 / groups, dtype=torch.float64, device=rest.device, requires_grad=True)
    each = (shares / group).repeat_interleave(group)
    number = value_of(each, log_weights, rest, values, gamma, estimator.startswith("w"))
    return OffPolicyEstimate(*jackknife(number, shares), size)


def value_of(
    shares: torch.Tensor,
    log_weights: torch.Tensor,
    rest: torch.Tensor,
    values: torch.Tensor,
    gamma: float,
    self_normalized: bool,
) -> torch.Tensor:
    """The equation above, with means over episodes that count by their shares.

    Args:
        shares: (n,) that sum to 1; with probabilities of all episodes that there are, the result is an expectation.
        log_weights: log w_t, (n, T).
        rest: r_t - q_t, (n, T).
        values: v_t, (n, T).
        gamma: discount per action.
        self_normalized: whether weights are divided by their means.

    Returns:
        ()
    """
    weights = log_weights.exp()
    before = torch.cat([torch.ones_like(weights[:, :1]), weights[:, :-1]], 1)  # w_{t-1}
    if self_normalized:
        weights, before = weights / (shares @ weights), before / (shares @ before)
    discounts = gamma ** torch.arange(weights.shape[1], dtype=weights.dtype, device=weights.device)
    return shares @ ((weights * rest + before * values) @ discounts)


def _terms(sample: OffPolicySample, estimator: Estimator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An estimator's log w_t, r_t - q_t and v_t, each (n, T) float64."""
    log_weights, rewards = sample.log_ratios.double().cumsum(-1), sample.rewards.double()
    if estimator in ("is", "wis"):
        log_weights = log_weights[:, -1:].expand_as(log_weights)
    if estimator not in ("dr", "wdr"):
        return log_weights, rewards, torch.zeros_like(rewards)
    if sample.values is None:
        raise ValueError(f"{estimator!r} is doubly robust: it needs values, a guess of V(s_t); 'wpdis' needs none")
    q_values = sample.values if sample.q_values is None else sample.q_values
    return log_weights, rewards - q_values.double(), sample.values.double()


def _effective_sample_size(log_weights: torch.Tensor, rest: torch.Tensor) -> float:
    """The least over the steps at which a weight counts; all episodes where there is none."""
    used = (rest != 0).any(0).nonzero().flatten().tolist()
    return min((effective_sample_size(log_weights[:, t]) for t in used), default=float(len(rest)))


def _check_mean(weights: torch.Tensor, group: int) -> None:
    """Refuse weights of whole episodes whose mean is not 1."""
    mean, error, *_ = Estimate.mean_of(weights.view(-1, group).mean(-1))
    if abs(mean - 1) > MOST_DEVIATIONS * error + 1e-3:  # log-probabilities are float32's
        raise NoOverlapError(
            f"the mean weight is {mean:.3f} ± {error:.3f}, not 1: either the behaviour never chooses what the policy "
            "may choose (was it truncated by top-k or top-p, or greedy?), or its log-probabilities are not those that "
            "its actions were drawn with (at another temperature?)"
        )
