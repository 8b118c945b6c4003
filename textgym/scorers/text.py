"""Scorers that read a completion's characters, tokens or length: cheap, with known optima, good as constraints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from textgym.arguments import Count, Finite, accepts, check_argument
from textgym.scorers.base import FloatArray, Generations, Scorer


class Keyword(Scorer):
    """1.0 if any of the words occurs in the completion as a whole word, else 0.0.

    A whole word has no letter, digit or underscore directly before or after it; so "art" does not occur in "party". A
    "word" may contain spaces.

    Args:
        words: the words, or a single one.
        case_sensitive: whether "Good" and "good" differ.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: one pass of a regular expression over the completion.

    Source: the keyword constraints of Khalifa et al. 2021 (arXiv 2012.11635).

    Example: `{"name": "keyword", "words": ["great", "fine"]}`

    Raises:
        ValueError: no word, or an empty one; `case_sensitive` is neither True nor False.
    """

    def __init__(self, words: str | Sequence[str], *, case_sensitive: bool = False, name: str = "keyword"):
        self.name = name
        self._pattern = _any_word(name, "words", words, case_sensitive)

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        return [float(bool(self._pattern.search(text))) for text in generations.completions]


class MoreWords(Scorer):
    """1.0 if the completion has more of some words than of some others, else 0.0.

    A tie, so also 0 to 0, is 0.0. Every occurrence of a whole word counts, as `Keyword` understands it. "she" over "he"
    tells texts about women from all other texts.

    Args:
        words: the words that are to prevail, or a single one.
        than: the others.
        case_sensitive: whether "She" and "she" differ.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: two passes of a regular expression over the completion.

    Source: TextGym's own, for constraints such as those on gender of Khalifa et al. 2021 (arXiv 2012.11635).

    Example: `{"name": "more_words", "words": ["she", "her"], "than": ["he", "his"]}`

    Raises:
        ValueError: no word, or an empty one; `case_sensitive` is neither True nor False.
    """

    def __init__(
        self,
        words: str | Sequence[str],
        than: str | Sequence[str],
        *,
        case_sensitive: bool = False,
        name: str = "more_words",
    ):
        self.name = name
        self._words = _any_word(name, "words", words, case_sensitive)
        self._others = _any_word(name, "than", than, case_sensitive)

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        texts = generations.completions
        return [float(len(self._words.findall(text)) > len(self._others.findall(text))) for text in texts]


class Regex(Scorer):
    """The share of the completion's characters that a pattern covers, in [0, 1].

    With m_1, m_2, ... the pattern's non-overlapping matches from left to right, it is sum_i |m_i| / |completion|, and 0
    for an empty completion. Under the pattern `ab`, "abcd" scores 0.5 and "ababab" 1.

    Args:
        pattern: a regular expression of Python's `re`; flags stand inside it, as in `(?i)good`.
        name: the component's name in `info`.

    Range: [0, 1]; 1 is best.

    Cost: one pass of the pattern over the completion; some patterns take exponential time.

    Source: TextGym's own, on Python's `re`.

    Example: `{"name": "regex", "pattern": "(?i)good"}`

    Raises:
        ValueError: the pattern is not a regular expression.
    """

    def __init__(self, pattern: str, *, name: str = "regex"):
        check_argument(f"scorer {name!r}: pattern", pattern, str)
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
    """-|n - target| / target for a completion of n tokens, EOS included.

    It is 0 at the target, and -1 at n = 0 and n = 2 target.

    Args:
        target: the number of tokens wanted, at least 1.
        name: the component's name in `info`.

    Range: at most 0; 0 is best.

    Cost: none; nothing is decoded.

    Source: TextGym's own.

    Example: `{"name": "length", "target": 12}`

    Raises:
        ValueError: the target is no integer, or below 1.
    """

    def __init__(self, target: int, *, name: str = "length"):
        check_argument(f"scorer {name!r}: target", target, Count)
        self.name = name
        self.target = target

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values at or below 0."""
        generations.mdp.refuse_turns(f"scorer {self.name!r}, which counts tokens,")
        return -np.abs(generations.lengths - self.target) / self.target


class TokenCounts(Scorer):
    """The sum of the weights of a completion's tokens, EOS included.

    It is sum_t w[x_t] over the tokens x_t; tokens without a weight count 0.

    With the weights {1: 1.0, 3: -0.5} the completion 1, 1, 3, EOS scores 1.5.

    Args:
        weights: weight of a token, by its id; ids may be strings, as the keys of JSON are.
        name: the component's name in `info`.

    Range: that of the weights times the number of tokens.

    Cost: one look-up per token; nothing is decoded.

    Source: TextGym's own: the features of a linear energy-based model over tokens.

    Example: `{"name": "token_counts", "weights": {"11": 1.0, "12": -0.5}}`

    Raises:
        ValueError: a weight that is not finite, or a key that is no token id or names one again.
    """

    def __init__(self, weights: Mapping[int | str, float], *, name: str = "token_counts"):
        self.name = name
        try:
            read = {int(str(key)): weight for key, weight in weights.items()}
        except (AttributeError, ValueError) as error:
            raise ValueError(f"scorer {name!r}: weights is {weights!r}; it must map token ids to numbers") from error
        finite = all(accepts(Finite, weight) for weight in read.values())
        if len(read) < len(weights) or min(read, default=0) < 0 or not finite:
            raise ValueError(
                f"scorer {name!r}: weights is {weights!r}; it must map token ids (0 or more, each only once) to finite "
                "numbers"
            )
        self.weights = read

    def score(self, generations: Generations) -> FloatArray:
        """(n,) sums.

        Raises:
            ValueError: a weighted id is not in the vocabulary.
        """
        mdp = generations.mdp
        mdp.refuse_turns(f"scorer {self.name!r}, which counts tokens,")
        if max(self.weights, default=0) >= mdp.vocab_size:
            raise ValueError(f"the weights name token {max(self.weights)}; ids run from 0 to {mdp.vocab_size - 1}")
        by_id = np.zeros(mdp.vocab_size + 1)  # pads count 0
        by_id[list(self.weights)] = list(self.weights.values())
        return by_id[generations.observations[:, mdp.max_prompt_tokens :]].sum(-1)


def _any_word(name: str, argument: str, words: str | Sequence[str], case_sensitive: bool) -> re.Pattern[str]:
    """A pattern that matches each of the words, whole: no letter, digit or underscore directly before or after it."""
    check_argument(f"scorer {name!r}: case_sensitive", case_sensitive, bool)
    listed = [words] if isinstance(words, str) else words
    if not isinstance(listed, Sequence) or not listed or not all(isinstance(word, str) and word for word in listed):
        raise ValueError(f"scorer {name!r}: {argument} is {words!r}; it must be a word, or a list of one or more")
    any_word = "|".join(map(re.escape, listed))
    return re.compile(rf"(?<!\w)(?:{any_word})(?!\w)", 0 if case_sensitive else re.IGNORECASE)
