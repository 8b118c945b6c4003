"""Target distributions p(x) = P(x) / Z over completions, P(x) = a(x) w(x), where a is the frozen reference model.

A target is what it multiplies the reference by, log w(x) = log P(x) - log a(x), as a function of features of x: numbers
that the env reports, its reward and its scorer's components. What needs a sample (the coefficients of a distributional
target) is fitted here; Z is estimated in `textgym.matching.estimates`, and enumerated in `textgym.exact`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from textgym.matching.moments import newton

Features = Mapping[str, torch.Tensor]


class Target(ABC):
    """A distribution over completions, relative to the reference.

    Attributes:
        features: names of the features that it reads; `"reward"` is the env's return, others are scorer components.
        has_zeros: whether some completions may have p(x) = 0.
    """

    features: tuple[str, ...]
    has_zeros: bool = False

    @abstractmethod
    def log_weights(self, features: Features) -> torch.Tensor:
        """The log-weights log P(x) - log a(x), (n,), of n completions; -inf where P(x) = 0. Features are (n,) each."""

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The target as JSON, which `make_target` reads."""

    @property
    def fitted(self) -> bool:
        """Whether nothing is left to `fit`."""
        return True

    def fit(self, features: Features, log_base: torch.Tensor, groups: torch.Tensor | None = None) -> None:
        """Determine what the target's statement leaves open, from one weighted sample.

        Args:
            features: (n,) each.
            log_base: (n,) log-weights under which the sample stands for the reference; zeros for samples of it, log a
                for all outcomes.
            groups: (n,) the prompt of each completion; None where there is one.
        """
        return None  # nothing to do for most


class RLHF(Target):
    """P(x) = a(x) exp(r(x) / beta), the optimum of E[r] - beta KL(pi || a) (Korbak et al. 2022, arXiv 2205.11275).

    Args:
        beta: in reward per nat.
        feature: r.

    Raises:
        ValueError: beta is not positive.
    """

    def __init__(self, beta: float, feature: str = "reward"):
        if not (beta > 0 and math.isfinite(beta)):
            raise ValueError(f"beta is {beta}; it must be positive")
        self.beta, self.features = float(beta), (feature,)

    def log_weights(self, features: Features) -> torch.Tensor:
        """The reward over beta, (n,)."""
        return features[self.features[0]] / self.beta

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        return {"name": "rlhf", "beta": self.beta, "feature": self.features[0]}


class Pointwise(Target):
    """P(x) = a(x) b(x) with a feature b(x) >= 0: a filter where b is 0 or 1 (Khalifa et al. 2021, arXiv 2012.11635).

    Args:
        feature: b.
        floor: b is raised to it, so that the target has no zeros; 0 keeps them.

    Raises:
        ValueError: a negative floor; in `log_weights`, a negative feature.
    """

    def __init__(self, feature: str = "reward", floor: float = 0.0):
        if not 0 <= floor < math.inf:
            raise ValueError(f"floor is {floor}; it must be 0 or positive")
        self.features, self.floor, self.has_zeros = (feature,), float(floor), floor == 0

    def log_weights(self, features: Features) -> torch.Tensor:
        """The feature's logarithm, (n,)."""
        b = features[self.features[0]]
        if (b < 0).any():
            raise ValueError(
                f"the feature {self.features[0]!r} of a pointwise target is {b.min().item()}; it must be >= 0"
            )
        return b.clamp(min=self.floor).log()

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        return {"name": "pointwise", "feature": self.features[0], "floor": self.floor}


class Distributional(Target):
    """The p nearest to a in KL(p || a) whose features have wanted means: P(x) = a(x) exp(<lambda, phi(x)>).

    lambda minimises the convex log Z(lambda) - <lambda, mu>, whose gradient is E_p phi - mu and whose Hessian is
    Cov_p(phi); `fit` takes Newton steps (Khalifa et al. 2021, arXiv 2012.11635, section 2.2). With several prompts
    lambda is common, and the means are those over all prompts.

    Args:
        means: feature name -> wanted mean mu.
        coefficients: lambda by name, where they are known; otherwise `fit` finds them.

    Raises:
        ValueError: no mean, a mean that is not finite, coefficients of other features; and see `fit`.
    """

    def __init__(self, means: Mapping[str, float], coefficients: Mapping[str, float] | None = None):
        if not means or not all(math.isfinite(mean) for mean in means.values()):
            raise ValueError(f"means is {dict(means)}; it must give every feature a finite mean")
        if coefficients is not None and set(coefficients) != set(means):
            raise ValueError(f"coefficients are of {sorted(coefficients)}, means of {sorted(means)}")
        self.means = {name: float(mean) for name, mean in means.items()}
        self.features = tuple(self.means)
        self.coefficients = None if coefficients is None else {n: float(coefficients[n]) for n in self.means}

    @property
    def fitted(self) -> bool:
        """Whether the coefficients are known."""
        return self.coefficients is not None

    def log_weights(self, features: Features) -> torch.Tensor:
        """<lambda, phi>, (n,).

        Raises:
            RuntimeError: the coefficients are not known yet.
        """
        if self.coefficients is None:
            raise RuntimeError("the distributional target is not fitted; call fit(), or give coefficients")
        return sum(value * features[name] for name, value in self.coefficients.items())  # type: ignore[return-value]

    def fit(self, features: Features, log_base: torch.Tensor, groups: torch.Tensor | None = None) -> None:
        """Find lambda.

        Raises:
            ValueError: a feature that is constant in the sample, a mean outside the sample's range, or means that no
                distribution over the sample has together, unless it excludes some of the sample.
        """
        possible = log_base > -math.inf
        if not possible.any():
            raise ValueError("no sample of the reference satisfies the target's other parts; sample more of them")
        phi = torch.stack([features[name][possible].double() for name in self.features], -1)  # (n, F)
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
        mu = torch.tensor(list(self.means.values()), dtype=torch.float64, device=phi.device)
        scale = phi.amax(0) - phi.amin(0)
        groups = None if groups is None else groups[possible]
        fitted, missed, found = newton((phi - mu) / scale, log_base[possible].double(), groups)
        if not found:
            nearest = dict(zip(self.features, (mu + scale * missed).tolist(), strict=True))
            raise ValueError(
                f"no distribution that keeps all of the reference's samples has the means {self.means} together "
                f"(nearest found: {nearest}); choose means that go together, or sample more"
            )
        self.coefficients = dict(zip(self.features, (fitted / scale).tolist(), strict=True))

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        spec: dict[str, Any] = {"name": "distributional", "means": self.means}
        return spec if self.coefficients is None else spec | {"coefficients": self.coefficients}


class Product(Target):
    """P(x) = a(x) prod_i w_i(x). A distributional part is the one nearest to a times the other parts.

    Args:
        targets: the parts, or their specs.

    Raises:
        ValueError: no part, or two distributional ones, whose means belong into one.
    """

    def __init__(self, targets: Sequence[Any]):
        made = [make_target(target) for target in targets]
        self.targets: list[Target] = [part for t in made for part in (t.targets if isinstance(t, Product) else [t])]
        self._open = [t for t in self.targets if isinstance(t, Distributional)]
        if not self.targets or len(self._open) > 1:
            raise ValueError("a product needs at least one part, and at most one distributional one with all means")
        self.features = tuple(dict.fromkeys(name for t in self.targets for name in t.features))
        self.has_zeros = any(t.has_zeros for t in self.targets)

    def log_weights(self, features: Features) -> torch.Tensor:
        """The sum over the parts, (n,)."""
        return sum(t.log_weights(features) for t in self.targets)  # type: ignore[return-value]

    @property
    def fitted(self) -> bool:
        """Whether all parts are."""
        return all(t.fitted for t in self.targets)

    def fit(self, features: Features, log_base: torch.Tensor, groups: torch.Tensor | None = None) -> None:
        """Fit the distributional part, under the others."""
        for part in self._open:
            others = sum(t.log_weights(features) for t in self.targets if t is not part)
            part.fit(features, log_base + others, groups)

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        return {"name": "product", "targets": [t.spec for t in self.targets]}


TARGETS: dict[str, type[Target]] = {
    "rlhf": RLHF,
    "pointwise": Pointwise,
    "distributional": Distributional,
    "product": Product,
}


def make_target(spec: Any) -> Target:
    """A target from its JSON, such as `{"name": "rlhf", "beta": 0.1}`; a `Target` is returned as it is.

    Raises:
        ValueError: an unknown name or argument.
    """
    if isinstance(spec, Target):
        return spec
    if not isinstance(spec, Mapping) or spec.get("name") not in list(TARGETS):
        raise ValueError(f"target is {spec!r}; accepted are a Target or a dict whose 'name' is one of {list(TARGETS)}")
    try:
        return TARGETS[spec["name"]](**{k: v for k, v in spec.items() if k != "name"})
    except TypeError as error:
        raise ValueError(f"target {spec!r}: {error}") from error


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
    target, base = Distributional(means), torch.zeros_like(next(iter(features.values())), dtype=torch.float64)
    try:
        target.fit(features, base)
    except ValueError:
        return math.nan
    assert target.coefficients is not None
    log_weights = target.log_weights(features).double()
    energy = sum(target.coefficients[name] * mean for name, mean in means.items())
    return energy - (log_weights.logsumexp(0) - math.log(len(base))).item()
