"""Sentiment by VADER, a lexicon and some rules: quick, deterministic, and without a model to download."""

from __future__ import annotations

from textgym.scorers.base import Generations, Scorer


class Sentiment(Scorer):
    """VADER's compound score of prompt + completion, in [-1, 1].

    Above 0.05 is usually read as positive.

    The compound score is s / sqrt(s² + 15), where s is the sum of the words' valences after VADER's rules for negation,
    emphasis and contrast. A text without sentiment words gives 0.

    It knows words, not what is meant: of all pairs of two movie-review sentences it puts 65% in the order of their mean
    ratings by people (half is chance), of product reviews 71%, of editorials 67%. One person's ratings put 84%, 87% and
    77% in that order, and the means of half of the people 91%, 94% and 89% in the order of the other half's.
    `python scripts/ratings.py` computes this. A reward model that learned from the ratings agrees with people better.

    Args:
        name: the component's name in `info`.

    Range: [-1, 1]; 1 is most positive.

    Cost: one look-up per word, linear in the length.

    Source: the package vaderSentiment; Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment
        Analysis of Social Media Text".

    Example: `{"name": "sentiment"}`

    Raises:
        ImportError: vaderSentiment is not installed.
    """

    def __init__(self, *, name: str = "sentiment"):
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise ImportError("the scorer 'sentiment' needs vaderSentiment: pip install vaderSentiment") from error
        self.name = name
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, generations: Generations) -> list[float]:
        """(n,) compound scores."""
        return [self._analyzer.polarity_scores(text)["compound"] for text in generations.texts]
