"""A scorer of how often a text repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

from textgym.arguments import Count, check_argument
from textgym.scorers.base import Generations, Scorer, errors_of
from textgym.scorers.words import WordTokenizer, word_tokenizer


class Repetition(Scorer):
    """Minus the share of the completion's n-grams that it had before.

    With N n-grams of which D are different ones, it is D / N - 1: distinct-n, less one. A completion with fewer than n
    words has 0.

    Args:
        n: words per n-gram.
        tokenizer: what the words are; see `textgym.scorers.words.word_tokenizer`. None stands for the env's own tokens,
            EOS included, which suits all languages.
        name: the component's name in `info`.

    Range: (-1, 0]; 0 is best.

    Cost: one set of n-grams per completion; without a `tokenizer` nothing is decoded.

    Source: Yeo et al. 2025 (arXiv 2502.03373), appendix C.2; TRL's `get_repetition_penalty_reward`, whose `max_penalty`
        is the weight in a `WeightedSum` here. distinct-n is of Li et al. 2016 (arXiv 1510.03055).

    Example: `{"name": "repetition", "n": 2, "tokenizer": "words"}`

    Raises:
        ImportError: the tokenizer's package is missing.
        ValueError: n is no integer, or below 1; there is no such tokenizer.
    """

    def __init__(self, n: Count = 3, *, tokenizer: WordTokenizer | None = None, name: str = "repetition"):
        check_argument(f"scorer {name!r}: n", n, Count)
        self.name, self.n = name, n
        with errors_of(name):
            self._words = None if tokenizer is None else word_tokenizer(tokenizer)

    def score(self, generations: Generations) -> list[float]:
        """(n,) values in (-1, 0]."""
        if self._words is None:
            generations.mdp.refuse_turns(f"scorer {self.name!r}, which counts tokens,")
            return [self._penalty(token_ids) for token_ids in generations.completion_ids]
        return [self._penalty(self._words(text)) for text in generations.completions]

    def _penalty(self, words: Sequence[int] | Sequence[str]) -> float:
        n_grams = list(zip(*(words[start:] for start in range(self.n)), strict=False))
        return len(set(n_grams)) / len(n_grams) - 1 if n_grams else 0.0
