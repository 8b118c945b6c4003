"""A rater that is made up: for tests of what learns from people, where the truth must be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from textgym.arguments import CheckedArguments, NonNegative, Seed

Verdict = Literal["first", "second", "tie"]


class SyntheticRater(CheckedArguments):
    """Judges two texts by a score of each, with noise.

    With d the difference of the scores divided by the noise, the verdicts are drawn as in Davidson (1970, eq. 2.3):

        P(first) : P(tie) : P(second) = exp(d / 2) : ties : exp(-d / 2).

    Without ties this is Bradley and Terry's model of the reward score / noise.

    Args:
        score: a text's score; larger is better.
        noise: in units of the score; 0 always names the better one, and ties where the scores are equal.
        ties: how likely a tie is; between texts of equal score it has the odds ties : 2.
        seed: of the verdicts.
    """

    def __init__(
        self, score: Callable[[str], float], *, noise: NonNegative = 1.0, ties: NonNegative = 0.0, seed: Seed = 0
    ):
        self.score, self.noise, self.ties = score, noise, ties
        self._rng = np.random.default_rng(seed)

    def judge(self, first: str, second: str) -> Verdict:
        """Which of two texts is better."""
        gap = self.score(first) - self.score(second)
        if self.noise == 0:
            return "tie" if gap == 0 else "first" if gap > 0 else "second"
        with np.errstate(divide="ignore"):  # log 0 = -inf: no ties
            logits = np.array([gap / self.noise / 2, np.log(self.ties), -gap / self.noise / 2])
        # adding Gumbel noise and taking the largest draws from the softmax
        drawn = int(np.argmax(logits + self._rng.gumbel(size=3)))
        verdicts: tuple[Verdict, ...] = ("first", "tie", "second")
        return verdicts[drawn]
