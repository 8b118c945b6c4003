"""How near the frequencies of a text's words are to wanted ones, for each text and, as moments, for the policy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from textgym.arguments import Positive, Probability, accepts, check_argument
from textgym.scorers.base import FloatArray, Generations, Scorer, Scores, errors_of
from textgym.scorers.composition import refuse_duplicates
from textgym.scorers.words import WordTokenizer, word_tokenizer


class WordFrequencies(Scorer):
    """Minus the KL divergence of the completion's frequencies of some words from wanted ones, in nats.

    The content words are those that are listed, with wanted frequencies q, which are scaled to sum to 1. A completion's
    frequencies are f_w = c_w / sum_v c_v, where c_w counts the word w, and the score is -sum_w f_w log(f_w / q_w).
    Because all q_w are positive it is finite without any smoothing. A completion with none of the words has the least
    value that any has, log(min_w q_w).

    Words that are not listed do not count, so nothing asks for how many of the words are listed ones. `other` does: it
    is the wanted share of all other words, which are then one more class, and the q_w are scaled to sum to 1 - other.

    A text of a few words cannot have the frequencies of a long list. The policy's texts together can, which is a
    distributional target: with `per_word` each listed word w has a component of its own, c_w - q_w n, where n is the
    number of words counted. All of their means are 0 just where the frequencies over all texts, E c_w / E n, are the
    wanted ones, so `Distributional({f"word_frequencies/{w}": 0.0 for w in words})` asks for that.

    Args:
        frequencies: word -> wanted frequency, positive, of any scale, such as counts; or the path of a text file with a
            word and its number on each line. Words are compared as the tokenizer reads them.
        other: the wanted share of words that are not listed, below 1; at 0 they are not counted.
        per_word: report each word's excess as a component of its own, named `"<name>/<word>"`.
        tokenizer: what the words are; see `textgym.scorers.words.word_tokenizer`.
        name: the component's name in `info`.

    Range: [log(min q), 0]; 0 is best.

    Cost: splitting the text and counting, linear in its length.

    Source: per text, the KL divergence of a topic's word distribution; per policy, moment constraints as in Khalifa et
        al. 2021 (arXiv 2012.11635).

    Example: `{"name": "word_frequencies", "frequencies": {"film": 3, "actor": 1}, "other": 0.9}`

    Raises:
        ImportError: the tokenizer's package is missing.
        FileNotFoundError: there is no such file.
        ValueError: fewer than two classes, a frequency that is no positive number, a word that the tokenizer does not
            read as one word or that is there twice, or another argument of another type or range.
    """

    def __init__(
        self,
        frequencies: Mapping[str, float] | str,
        *,
        other: Probability = 0.0,
        per_word: bool = False,
        tokenizer: WordTokenizer = "words",
        name: str = "word_frequencies",
    ):
        who = f"scorer {name!r}"
        check_argument(f"{who}: other", other, Probability)
        check_argument(f"{who}: per_word", per_word, bool)
        with errors_of(name):
            self._words = word_tokenizer(tokenizer)
        self.name, self.other, self.per_word = name, other, per_word
        given = _read(who, frequencies) if isinstance(frequencies, str) else frequencies
        wanted = self._by_word(who, given)
        if other == 1 or len(wanted) + (other > 0) < 2:
            raise ValueError(
                f"{who}: frequencies is {given!r}, and other {other}; there must be two words, or one and others"
            )
        total = math.fsum(wanted.values())
        self.frequencies = {word: (1 - other) * number / total for word, number in wanted.items()}
        self._wanted = np.array([*self.frequencies.values(), *([other] if other else [])])  # (V,) or (V + 1,)
        self._component_names = tuple(f"{name}/{word}" for word in self.frequencies) if per_word else ()
        refuse_duplicates(name, self.component_names)

    @property
    def component_names(self) -> tuple[str, ...]:
        """This one's name, and with `per_word` one for each word."""
        return (self.name, *self._component_names)

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values at or below 0."""
        return self._divergences(self._counts(generations.completions))

    def evaluate(self, generations: Generations) -> Scores:
        """The values, and with `per_word` each word's excess, 0 in rows that have not ended."""
        scores = super().evaluate(generations)
        if self.per_word:
            counts = np.zeros((len(generations), len(self._wanted)))
            if generations.ended.any():
                counts[generations.ended] = self._counts(generations.select(generations.ended).completions)
            excess = counts - counts.sum(-1, keepdims=True) * self._wanted
            scores.components.update(zip(self._component_names, excess.T, strict=False))  # that of others is left out
        return scores

    def _counts(self, texts: list[str]) -> FloatArray:
        """How often each listed word occurs, and then, if they count, all others together; (n, V) or (n, V + 1)."""
        rows = []
        for text in texts:
            words = Counter(self._words(text))
            listed = [words.get(word, 0) for word in self.frequencies]
            rows.append([*listed, words.total() - sum(listed)] if self.other else listed)
        return np.array(rows, np.float64)

    def _divergences(self, counts: FloatArray) -> FloatArray:
        totals = counts.sum(-1, keepdims=True)
        shares = counts / np.maximum(totals, 1)  # (n, V)
        logs = np.log(np.where(shares > 0, shares / self._wanted, 1))  # 0 log 0 is 0
        values = -(shares * logs).sum(-1)
        return np.where(totals[:, 0] > 0, np.minimum(values, 0), math.log(self._wanted.min()))

    def _by_word(self, who: str, given: Mapping[str, float]) -> dict[str, float]:
        """The numbers by their words as the tokenizer reads them."""
        if not isinstance(given, Mapping) or not given or not all(isinstance(word, str) for word in given):
            raise ValueError(
                f"{who}: frequencies is {given!r}; it must give words a positive number each, or be a path"
            )
        wanted: dict[str, float] = {}
        for word, number in given.items():
            if not accepts(Positive, number):
                raise ValueError(f"{who}: the frequency of {word!r} is {number!r}; it must be a positive number")
            read = self._words(word)
            if len(read) != 1:
                raise ValueError(f"{who}: {word!r} is no word: the tokenizer reads {read}, so no text has it")
            if read[0] in wanted:
                raise ValueError(f"{who}: {word!r} is listed twice; the tokenizer reads it as {read[0]!r}")
            wanted[read[0]] = float(number)
        return wanted


def _read(who: str, path: str) -> dict[str, float]:
    """The lines of a file, each a word, white space and a number; empty ones are skipped."""
    read: dict[str, float] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        match line.split():
            case []:
                continue
            case [word, value] if _is_number(value) and word not in read:
                read[word] = float(value)
            case _:
                raise ValueError(f"{who}: line {number} of {path!r} is {line!r}; it must be a new word and its number")
    return read


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
