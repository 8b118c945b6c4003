"""Products of targets, and targets from their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from textgym.arguments import check_argument
from textgym.matching.targets import TARGETS, Distributional, Features, Target


@dataclass(frozen=True)
class Product(Target):
    """P(x) = a(x) prod_i w_i(x). A distributional part is the one nearest to a times the other parts.

    Args:
        targets: the parts, or their specs; the parts of a product among them become parts of this one.

    Raises:
        ValueError: no part, or two distributional ones, whose means belong into one.
    """

    targets: Sequence[Any]

    def __post_init__(self) -> None:
        """Make the parts, and check them."""
        check_argument("targets", self.targets, list | tuple)
        made = [make_target(target) for target in self.targets]
        parts = tuple(part for t in made for part in (t.targets if isinstance(t, Product) else [t]))
        if not parts or sum(isinstance(part, Distributional) for part in parts) > 1:
            raise ValueError("a product needs at least one part, and at most one distributional one with all means")
        object.__setattr__(self, "targets", parts)

    @property
    def features(self) -> tuple[str, ...]:
        """The features of all parts, each named once."""
        return tuple(dict.fromkeys(name for t in self.targets for name in t.features))

    @property
    def has_zeros(self) -> bool:
        """Whether any part has zeros."""
        return any(t.has_zeros for t in self.targets)

    @property
    def fitted(self) -> bool:
        """Whether all parts are fitted."""
        return all(t.fitted for t in self.targets)

    @property
    def spec(self) -> dict[str, Any]:
        """The target as JSON."""
        return {"name": "product", "targets": [t.spec for t in self.targets]}

    def log_weights(self, features: Features) -> torch.Tensor:
        """The sum over the parts, (n,)."""
        return sum(t.log_weights(features) for t in self.targets)  # type: ignore[return-value]

    def fit(self, features: Features, log_base: torch.Tensor, groups: torch.Tensor | None = None) -> Product:
        """The product with its distributional part fitted, under the others."""
        for number, part in enumerate(self.targets):
            if not part.fitted:
                others = [t.log_weights(features) for t in self.targets if t is not part]
                fitted = part.fit(features, log_base + sum(others), groups)
                return Product([*self.targets[:number], fitted, *self.targets[number + 1 :]])
        return self


NAMED = TARGETS | {"product": Product}


def make_target(spec: Any) -> Target:
    """A target from its JSON, such as `{"name": "rlhf", "beta": 0.1}`; a `Target`, being a value, is returned as it is.

    Raises:
        ValueError: an unknown name or argument.
    """
    if isinstance(spec, Target):
        return spec
    if not isinstance(spec, Mapping) or spec.get("name") not in list(NAMED):
        raise ValueError(f"target is {spec!r}; accepted are a Target or a dict whose 'name' is one of {list(NAMED)}")
    try:
        return NAMED[spec["name"]](**{k: v for k, v in spec.items() if k != "name"})
    except TypeError as error:
        raise ValueError(f"target {spec!r}: {error}") from error
