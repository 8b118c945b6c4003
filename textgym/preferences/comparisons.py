"""Preferences and ratings as arrays: which texts there are, and who is compared with whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.mdp import BoolArray, IntArray
from textgym.preferences.data import Preference, Rating, first_columns, read_preferences, read_ratings

Item = tuple[str, str]
"""A prompt, and what follows it; together they are one text."""
MOST_PAIRED = 3000
"""How many rated texts are paired with each other: four and a half million pairs."""
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Comparisons:
    """E comparisons of some of the texts; a rating is one of a text with nothing.

    Attributes:
        items: the different texts.
        candidates: (E, n) int64, numbers of items, the preferred one first; -1 where a comparison has fewer than n.
        margins: (E,) float64, by how much the first one was better; 0 where nobody said.
        ties: (E,) bool, where neither of two was better.
        ratings: (E,) float64, of the first one; empty where there are none.
    """

    items: list[Item]
    candidates: IntArray
    margins: FloatArray
    ties: BoolArray
    ratings: FloatArray = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        """E."""
        return len(self.candidates)

    def select(self, index: IntArray) -> Comparisons:
        """The comparisons that `index` numbers; the items stay."""
        per_comparison = {name: getattr(self, name)[index] for name in ("candidates", "margins", "ties")}
        return replace(self, **per_comparison, ratings=self.ratings[index] if len(self.ratings) else self.ratings)

    @property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """Items of which one was preferred to the other, (M,) and (M,), the better ones first.

        Of ratings these are all pairs of items with one prompt and different ratings; of more than `MOST_PAIRED` items,
        those of as many that are drawn at random, always the same.
        """
        if not len(self.ratings):
            better = np.repeat(self.candidates[:, :1], self.candidates.shape[1] - 1, 1)
            valid = (self.candidates[:, 1:] >= 0) & ~self.ties[:, None]
            return better[valid], self.candidates[:, 1:][valid]
        prompts = np.unique([prompt for prompt, _ in self.items], return_inverse=True)[1][self.candidates[:, 0]]  # (E,)
        drawn = np.random.default_rng(0).permutation(len(self))[:MOST_PAIRED]
        first, second = (drawn[index] for index in np.triu_indices(len(drawn), 1))
        ahead = (self.ratings[first] - self.ratings[second]) * (prompts[first] == prompts[second])
        better, worse = np.where(ahead > 0, first, second), np.where(ahead > 0, second, first)
        return self.candidates[better[ahead != 0], 0], self.candidates[worse[ahead != 0], 0]


def compared(preferences: Sequence[Preference], *, grouped: bool = False) -> Comparisons:
    """Pairs, or with `grouped` each chosen text with all that were rejected for it.

    Raises:
        ValueError: a tie among grouped ones, where one text has to be the best.
    """
    number: dict[Item, int] = {}
    groups: dict[Any, list[int]] = {}
    for row, one in enumerate(preferences):
        if grouped and one.tie:
            raise ValueError(
                f"row {row} of the preferences is a tie, in which no text is the positive one; leave it out"
            )
        chosen, rejected = (number.setdefault((one.prompt, text), len(number)) for text in (one.chosen, one.rejected))
        groups.setdefault(chosen if grouped else row, [chosen]).append(rejected)
    candidates = np.full((len(groups), max(map(len, groups.values()))), -1)
    for row, numbers in enumerate(groups.values()):
        candidates[row, : len(numbers)] = numbers
    margins = np.zeros(len(groups)) if grouped else np.array([one.margin or 0.0 for one in preferences])
    ties = np.zeros(len(groups), bool) if grouped else np.array([one.tie for one in preferences])
    return Comparisons(list(number), candidates, margins, ties)


def rated(ratings: Sequence[Rating]) -> Comparisons:
    """Each text with its rating; of a text that is rated twice, the mean.

    A model that gives one value to a text can do no better than the mean.
    """
    values: dict[Item, list[float]] = {}
    for one in ratings:
        values.setdefault((one.prompt, one.text), []).append(one.rating)
    means, n = np.array([np.mean(given) for given in values.values()]), len(values)
    return Comparisons(list(values), np.arange(n)[:, None], np.zeros(n), np.zeros(n, bool), means)


def comparisons_of(source: Any, name: str, *, grouped: bool = False) -> Comparisons:
    """Read preferences or ratings; these are rows with the column `rating` and without `chosen`, as the first one says.

    Args:
        source: what `read_preferences` and `read_ratings` read.
        name: what it is called in errors.
        grouped: see `compared`.

    Raises:
        ValueError: see there.
        FileNotFoundError: the file does not exist.
    """
    source = list(source) if isinstance(source, Iterator) else source
    columns = first_columns(source, name)
    if "rating" in columns and "chosen" not in columns:
        return rated(read_ratings(source, name))
    return compared(read_preferences(source, name), grouped=grouped)
