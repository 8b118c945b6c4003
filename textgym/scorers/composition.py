"""Scorers made of scorers. Parts stay visible in `info` under their own names.

Sums and thresholds only: they are what a JSON spec needs. Any other combination is a Python function or a `Scorer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from textgym.arguments import Finite, check_argument
from textgym.scorers.base import FloatArray, Generations, Scorer, Scores, check_finite
from textgym.scorers.registry import make_scorer


class WeightedSum(Scorer):
    """The weighted sum of several scorers, sum_i w_i r_i.

    The components are those of the parts; the sum itself is the reward.

    If any part pays per token, so does the sum; parts that do not then pay at the end, and 0 before. A part that does
    not apply to a row (None) is left out of its sum, and NaN in `info`; a row to which no part applies is an error.

    Args:
        scorers: the parts, each anything that `make_scorer` accepts.
        weights: w_i, one per part; 1 each by default.
        name: the scorer's name in errors.

    Range: that of the parts, weighted.

    Cost: that of the parts.

    Source: TextGym's own.

    Example: `{"name": "weighted_sum", "scorers": ["sentiment", {"name": "length", "target": 12}], "weights": [1, 0.5]}`

    Raises:
        ValueError: no part, another number of weights than of parts, a weight that is no finite number, a name that
            is no text, or two components of one name.
    """

    def __init__(self, scorers: Sequence[Any], weights: Sequence[float] | None = None, *, name: str = "weighted_sum"):
        check_argument("the name of a weighted sum", name, str)
        self.name = name
        self.scorers = [make_scorer(scorer) for scorer in _items(name, "scorers", scorers)]
        self.weights = [1.0] * len(self.scorers) if weights is None else _items(name, "weights", weights)
        if not self.scorers:
            raise ValueError(f"scorer {name!r} needs at least one part")
        if len(self.weights) != len(self.scorers):
            raise ValueError(f"scorer {name!r} has {len(self.scorers)} parts, but {len(self.weights)} weights")
        for index, weight in enumerate(self.weights):
            check_argument(f"scorer {name!r}: weights[{index}]", weight, Finite)
        refuse_duplicates(name, self.component_names)
        self.per_token = any(scorer.per_token for scorer in self.scorers)
        self.slow = any(scorer.slow for scorer in self.scorers)

    @property
    def component_names(self) -> tuple[str, ...]:
        """The parts' components, in order."""
        return tuple(name for scorer in self.scorers for name in scorer.component_names)

    @property
    def objectives(self) -> dict[str, float]:
        """The parts' objectives; those of a sum within the sum have the product of both weights."""
        parts = zip(self.weights, self.scorers, strict=True)
        return {name: weight * inner for weight, scorer in parts for name, inner in scorer.objectives.items()}

    def score(self, generations: Generations) -> FloatArray:
        """(n,) sums."""
        return self.evaluate(generations).rewards

    def evaluate(self, generations: Generations) -> Scores:
        """The weighted sum, and every part's components unweighted."""
        parts = [scorer.evaluate(generations) for scorer in self.scorers]
        rewards = np.zeros(len(generations))
        components: dict[str, FloatArray] = {}
        for weight, part in zip(self.weights, parts, strict=True):
            rewards += weight * part.rewards
            components |= part.components
        applies: Any = True
        if np.isnan(rewards.sum()):  # None in some part, or more than a float holds
            applies = ~np.all([np.isnan(part.rewards) for part in parts], axis=0)
            weighted = [weight * part.rewards for weight, part in zip(self.weights, parts, strict=True)]
            rewards = np.where(applies, np.nansum(weighted, axis=0), np.nan)
        return Scores(check_finite(self.name, rewards, generations, applies), components)


class Threshold(Scorer):
    """1.0 where another scorer's value is at least `at`, else 0.0.

    That scorer's own components stay visible. A token scorer's payments are compared one by one. Where it does not
    apply, neither does the threshold.

    Args:
        scorer: anything that `make_scorer` accepts.
        at: the threshold, in the scorer's units.
        name: the component's name in `info`; by default `"<scorer's name>>=<at>"`, such as `"sentiment>=0.5"`.

    Range: 0 or 1; 1 is best.

    Cost: that of the scorer.

    Source: TextGym's own, for pointwise constraints.

    Example: `{"name": "threshold", "scorer": "sentiment", "at": 0.5}`

    Raises:
        ValueError: the threshold is no finite number, or `name` is no text or a component of the scorer already.
    """

    def __init__(self, scorer: Any, at: float, *, name: str | None = None):
        self.scorer = make_scorer(scorer)
        check_argument("the name of a threshold", name, str | None)
        check_argument(f"scorer {'threshold' if name is None else name!r}: at", at, Finite)
        self.name = f"{self.scorer.name}>={at:g}" if name is None else name
        self.at = at
        refuse_duplicates(self.name, self.component_names)
        self.per_token, self.slow = self.scorer.per_token, self.scorer.slow

    @property
    def component_names(self) -> tuple[str, ...]:
        """This one's name, then the scorer's components."""
        return (self.name, *self.scorer.component_names)

    def score(self, generations: Generations) -> FloatArray:
        """(n,) 0.0 or 1.0."""
        return self.evaluate(generations).rewards

    def evaluate(self, generations: Generations) -> Scores:
        """The comparison, and the scorer's components as they are."""
        scores = self.scorer.evaluate(generations)
        paid = generations.ended | self.per_token  # the 0 of an unfinished row is no value to compare
        passed = (paid & (scores.rewards >= self.at)).astype(np.float64)
        passed[np.isnan(scores.rewards)] = np.nan
        return Scores(passed, {self.name: passed, **scores.components})


def _items(name: str, argument: str, given: Iterable[Any]) -> list[Any]:
    """What was given as a list; a text or a dict could be taken for one of its letters or keys."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"scorer {name!r}: {argument} is {given!r}; it must be a list")
    return list(given)


def refuse_duplicates(name: str, components: Sequence[str]) -> None:
    """Refuse, with a ValueError, that two components of a scorer have one name."""
    if twice := [component for component, count in Counter(components).items() if count > 1]:
        raise ValueError(
            f"scorer {name!r} has two components named {twice[0]!r}; rename one with name=... "
            '("component_name" in a JSON dict)'
        )
