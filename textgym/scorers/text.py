"""Scorers that read a completion's characters or its length: cheap, with known optima, good as constraints."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from textgym.scorers.base import FloatArray, Generations, Scorer


class Keyword(Scorer):
    """1.0 if any of the words occurs in the completion as a whole word, else 0.0.

    A whole word has no letter, digit or underscore directly before or after it; so "art" does not occur in "party". A
    "word" may contain spaces.

    Args:
        words: the words, or a single one.
        case_sensitive: whether "Good" and "good" differ.
        name: the component's name in `info`.

    Raises:
        ValueError: no word, or an empty one.
    """

    def __init__(self, words: str | Sequence[str], *, case_sensitive: bool = False, name: str = "keyword"):
        listed = [words] if isinstance(words, str) else list(words)
        if not listed or not all(isinstance(word, str) and word for word in listed):
            raise ValueError(f"scorer {name!r} needs at least one non-empty word, not {words!r}")
        self.name = name
        any_word = "|".join(map(re.escape, listed))
        self._pattern = re.compile(rf"(?<!\w)(?:{any_word})(?!\w)", 0 if case_sensitive else re.IGNORECASE)

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        return [float(bool(self._pattern.search(text))) for text in generations.completions]


class Regex(Scorer):
    """The share of the completion's characters that a pattern covers, in [0, 1].

    With m_1, m_2, ... the pattern's non-overlapping matches from left to right, it is sum_i |m_i| / |completion|, and 0
    for an empty completion. Under the pattern `ab`, "abcd" scores 0.5 and "ababab" 1.

    Args:
        pattern: a regular expression of Python's `re`; flags stand inside it, as in `(?i)good`.
        name: the component's name in `info`.

    Raises:
        ValueError: the pattern is not a regular expression.
    """

    def __init__(self, pattern: str, *, name: str = "regex"):
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"scorer {name!r}: {pattern!r} is not a regular expression: {error}") from error
        self.name = name

    def score(self, generations: Generations) -> list[float]:
        """(n,) shares."""
        return [self._coverage(text) for text in generations.completions]

    def _coverage(self, text: str) -> float:
        return sum(len(match[0]) for match in self._pattern.finditer(text)) / len(text) if text else 0.0


class Length(Scorer):
    """-|n - target| / target for a completion of n tokens, EOS included: 0 at the target, -1 at n = 0 and 2 target.

    Args:
        target: the number of tokens wanted, at least 1.
        name: the component's name in `info`.

    Raises:
        ValueError: the target is below 1.
    """

    def __init__(self, target: int, *, name: str = "length"):
        if target < 1:
            raise ValueError(f"scorer {name!r}: target is {target}; it must be at least 1")
        self.name = name
        self.target = target

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values at or below 0."""
        return -np.abs(generations.lengths - self.target) / self.target
