"""Target distributions p(x) = P(x) / Z over completions, P(x) = a(x) w(x), where a is the frozen reference model.

A target is what it multiplies the reference by, log w(x) = log P(x) - log a(x), as a function of features of x: numbers
that the env reports, its reward and its scorer's components. Targets are values: nothing changes one, and what needs a
sample (the coefficients of a distributional target) comes from `fit` as a new target, so one object may serve many
agents. Z is estimated in `textgym.matching.estimates`, and enumerated in `textgym.exact`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from textgym.arguments import Finite, NonNegative, Positive, check_argument
from textgym.matching.moments import newton

Features = Mapping[str, torch.Tensor]


class Target(ABC):
    """A distribution over completions, relative to the reference; a value, which nothing changes."""

    @property
    @abstractmethod
    def features(self) -> tuple[str, ...]:
        """Names of the features that it reads; `"reward"` is the env's return, others are scorer components."""

    @property
    def has_zeros(self) -> bool:
        """Whether some completions may have p(x) = 0."""
        return False

    @property
    def fitted(self) -> bool:
        """Whether nothing is left to `fit`."""
        return True

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The target as JSON, which `make_target` reads."""

    @abstractmethod
    def log_weights(self, features: Features) -> torch.Tensor:
        """The log-weights log P(x) - log a(x), (n,), of n completions; -inf where P(x) = 0. Features are (n,) each."""

    def fit(self, features: Features, log_base: torch.Tensor, groups: torch.Tensor | None = None) -> Target:
        """The target with everything determined that its statement leaves open, from one weighted sample.

        Args:
            features: (n,) each.
            log_base: (n,) log-weights under which the sample stands for the reference; zeros for samples of it, log a
                for all outcomes.
            groups: (n,) the prompt of each completion; None where there is one.

        Returns:
            a new target; this one itself where nothing is open.
        """
        return self


@dataclass(frozen=True)
class RLHF(Target):
    """P(x) = a(x) exp(r(x) / beta), the optimum of E[r] - beta KL(pi || a) (Korbak et al. 2022, arXiv 2205.11275).

    Args:
        beta: in reward per nat.
        feature: r.

    Raises:
        ValueError: beta is no positive number, or the feature no name.
    """

    beta: float
    feature: str = "reward"

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_argument("beta", self.beta, Positive)
        check_argument("feature", self.feature, str)
        object.__setattr__(self, "beta", float(self.beta))

    @property
    def features(self) -> tuple[str, ...]:
        """The reward's name."""
        return (self.feature,)

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        return {"name": "rlhf", "beta": self.beta, "feature": self.feature}

    def log_weights(self, features: Features) -> torch.Tensor:
        """The reward over beta, (n,)."""
        return features[self.feature] / self.beta


@dataclass(frozen=True)
class Pointwise(Target):
    """P(x) = a(x) b(x) with a feature b(x) >= 0: a filter where b is 0 or 1 (Khalifa et al. 2021, arXiv 2012.11635).

    Args:
        feature: b.
        floor: b is raised to it, so that the target has no zeros; 0 keeps them.

    Raises:
        ValueError: a floor that is no number, or negative; a feature that is no name; in `log_weights`, a negative
            feature.
    """

    feature: str = "reward"
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_argument("floor", self.floor, NonNegative)
        check_argument("feature", self.feature, str)
        object.__setattr__(self, "floor", float(self.floor))

    @property
    def features(self) -> tuple[str, ...]:
        """The name of the feature b."""
        return (self.feature,)

    @property
    def has_zeros(self) -> bool:
        """Whether there may be zeros: only where there is no floor."""
        return self.floor == 0

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        return {"name": "pointwise", "feature": self.feature, "floor": self.floor}

    def log_weights(self, features: Features) -> torch.Tensor:
        """The feature's logarithm, (n,)."""
        b = features[self.feature]
        if (b < 0).any():
            raise ValueError(f"the feature {self.feature!r} of a pointwise target is {b.min().item()}; it must be >= 0")
        return b.clamp(min=self.floor).log()


@dataclass(frozen=True)
class Distributional(Target):
    """The p nearest to a in KL(p || a) whose features have wanted means: P(x) = a(x) exp(<lambda, phi(x)>).

    lambda minimises the convex log Z(lambda) - <lambda, mu>, whose gradient is E_p phi - mu and whose Hessian is
    Cov_p(phi); `fit` takes Newton steps (Khalifa et al. 2021, arXiv 2012.11635, section 2.2). With several prompts
    lambda is common, and the means are those over all prompts.

    Args:
        means: feature name -> wanted mean mu; a read-only copy is kept.
        coefficients: lambda by name, where they are known; otherwise `fit` finds them. A read-only copy is kept.

    Raises:
        ValueError: no mean, a mean or coefficient that is no finite number, coefficients of other features; and see
            `fit`.
    """

    means: Mapping[str, float]
    coefficients: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        means, coefficients = self.means, self.coefficients
        for what, given in (("means", means), ("coefficients", coefficients)):
            if given is None and what == "coefficients":
                continue
            if not isinstance(given, Mapping) or not given or not all(isinstance(name, str) for name in given):
                raise ValueError(f"{what} is {given!r}; it must give features, by their names, a finite number each")
            for name, number in given.items():
                check_argument(f"{what}[{name!r}]", number, Finite)
        if coefficients is not None and set(coefficients) != set(means):
            raise ValueError(f"coefficients are of {sorted(coefficients)}, means of {sorted(means)}")
        for name, numbers in (("means", means), ("coefficients", coefficients)):
            if numbers is not None:
                object.__setattr__(self, name, MappingProxyType({n: float(numbers[n]) for n in means}))

    def __reduce__(self) -> tuple[Any, ...]:
        """What pickle and copy need, as read-only mappings can be neither pickled nor copied."""
        return Distributional, (dict(self.means), None if self.coefficients is None else dict(self.coefficients))

    def __hash__(self) -> int:
        """The hash of the features' names, as mappings have none."""
        return hash(self.features)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features with a wanted mean."""
        return tuple(self.means)

    @property
    def fitted(self) -> bool:
        """Whether the coefficients are known."""
        return self.coefficients is not None

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        spec: dict[str, Any] = {"name": "distributional", "means": dict(self.means)}
        return spec if self.coefficients is None else spec | {"coefficients": dict(self.coefficients)}

    def log_weights(self, features: Features) -> torch.Tensor:
        """The log-weights <lambda, phi>, (n,).

        Raises:
            RuntimeError: the coefficients are not known yet.
        """
        if self.coefficients is None:
            raise RuntimeError("the distributional target is not fitted; use what fit() returns, or give coefficients")
        return sum(value * features[name] for name, value in self.coefficients.items())  # type: ignore[return-value]

    def fit(self, features: Features, log_base: torch.Tensor, groups: torch.Tensor | None = None) -> Distributional:
        """The target with its coefficients; itself where they are known.

        Raises:
            ValueError: a feature that is constant in the sample, a mean outside the sample's range, or means that no
                distribution over the sample has together, unless it excludes some of the sample.
        """
        if self.coefficients is not None:
            return self
        possible = log_base > -math.inf
        if not possible.any():
            raise ValueError("no sample of the reference satisfies the target's other parts; sample more of them")
        phi = torch.stack([features[name][possible].double() for name in self.features], -1)  # (n, F)
        self._check_range(phi)
        mu = torch.tensor(list(self.means.values()), dtype=torch.float64, device=phi.device)
        scale = phi.amax(0) - phi.amin(0)
        groups = None if groups is None else groups[possible]
        fitted, missed, found = newton((phi - mu) / scale, log_base[possible].double(), groups)
        if not found:
            nearest = dict(zip(self.features, (mu + scale * missed).tolist(), strict=True))
            raise ValueError(
                f"no distribution that keeps all of the reference's samples has the means {dict(self.means)} together "
                f"(nearest found: {nearest}); choose means that go together, or sample more"
            )
        return replace(self, coefficients=dict(zip(self.features, (fitted / scale).tolist(), strict=True)))

    def _check_range(self, phi: torch.Tensor) -> None:
        """Every wanted mean lies strictly within the range of its feature, a column of (n, F)."""
        for name, column in zip(self.features, phi.T, strict=True):
            low, high, mean = column.min().item(), column.max().item(), self.means[name]
            if low == high:
                raise ValueError(
                    f"the feature {name!r} is {low:g} in all {len(column)} samples of the reference, so no mean can be "
                    "set; sample more of them, or choose a feature that occurs"
                )
            if not low < mean < high:
                raise ValueError(
                    f"the mean {mean:g} of {name!r} does not lie strictly within {low:g}..{high:g}, its range in the "
                    f"reference's samples; a mean at the end of the range is a pointwise constraint"
                )


TARGETS: dict[str, type[Target]] = {
    "rlhf": RLHF,
    "pointwise": Pointwise,
    "distributional": Distributional,
}
"""Targets by the name in their JSON; `textgym.matching.products` adds products of them."""


def least_kl(means: Mapping[str, float], features: Features) -> float:
    """The least KL(pi || a) in nats of any policy under which the features have these means.

    It is KL(p || a) = <lambda, mu> - log Z of the distributional target p. For one feature in {0, 1} with base rate Z
    and mean s it is s log(s / Z) + (1 - s) log((1 - s) / (1 - Z)).

    Args:
        means: feature name -> mean.
        features: (n,) each, of samples of the reference.

    Returns:
        NaN where no distribution that keeps all of the samples has these means.
    """
    base = torch.zeros_like(next(iter(features.values())), dtype=torch.float64)
    try:
        target = Distributional(means).fit(features, base)
    except ValueError:
        return math.nan
    assert target.coefficients is not None
    log_weights = target.log_weights(features).double()
    energy = sum(target.coefficients[name] * mean for name, mean in means.items())
    return energy - (log_weights.logsumexp(0) - math.log(len(base))).item()
