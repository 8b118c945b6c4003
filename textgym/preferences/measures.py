"""How well scores of texts agree with what people said: accuracy on pairs, and calibration.

Pairs that share a text are not independent: a text that a model misreads is wrong in all of its pairs. The intervals
here count that, so they do not shrink when the same texts are paired more often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textgym.evaluation.statistics import Interval
from textgym.mdp import IntArray
from textgym.preferences.comparisons import Comparisons, FloatArray


def pair_accuracy(scores: FloatArray, better: IntArray, worse: IntArray) -> Interval:
    """The share of pairs in which the better text has the larger score, with a 95% interval; equal scores are half.

    With e the deviation of a pair from that share, the variance of the mean of M pairs is estimated as
    [sum over texts of (sum of e over the text's pairs)^2 - sum of e^2] / M^2: every product e e' of two pairs that
    share a text, each once (Aronow et al. 2015, eq. 3). For pairs that share none it is the usual one.

    Args:
        scores: (n,) of texts.
        better: (M,) numbers of texts.
        worse: (M,) numbers of the texts that they were preferred to.

    Raises:
        ValueError: there is no pair.
    """
    if not len(better):
        raise ValueError("there is no pair of which one text was preferred: all are ties, or all ratings are the same")
    right = (np.sign(scores[better] - scores[worse]) + 1) / 2  # (M,)
    residuals = right - right.mean()
    sums = sum(np.bincount(index, residuals, len(scores)) for index in (better, worse))  # (n,)
    squares = np.square(residuals).sum()
    variance = max(np.square(sums).sum() - squares, squares) / len(right) ** 2
    return Interval.normal(right.mean(), np.sqrt(variance))


@dataclass(frozen=True)
class Reliability:
    """What was predicted and what happened, in bins of the prediction that hold equally many cases.

    Attributes:
        predicted: mean prediction of each bin.
        observed: mean outcome of each bin.
        counts: cases in each bin.
    """

    predicted: FloatArray
    observed: FloatArray
    counts: IntArray

    @property
    def expected_calibration_error(self) -> float:
        """Mean over cases of |predicted - observed| of their bin (Naeini et al. 2015), in units of the outcome."""
        return float(np.average(abs(self.predicted - self.observed), weights=self.counts))


def reliability(predicted: FloatArray, observed: FloatArray, bins: int = 10) -> Reliability:
    """Bins of equally many predictions, in increasing order.

    Args:
        predicted: (n,) such as probabilities.
        observed: (n,) such as 0 and 1.
        bins: how many at most.
    """
    parts = [part for part in np.array_split(np.argsort(predicted, kind="stable"), bins) if len(part)]
    return Reliability(
        np.array([predicted[part].mean() for part in parts]),
        np.array([observed[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


@dataclass(frozen=True)
class RewardEvaluation:
    """How well a reward model agrees with people.

    Attributes:
        accuracy: see `pair_accuracy`.
        num_pairs: how many pairs it is the share of.
        num_texts: how many different texts they are made of.
        mean_reward: over the texts.
        reliability: of the probability that a text is preferred, or of the predicted ratings; None without either.
    """

    accuracy: Interval
    num_pairs: int
    num_texts: int
    mean_reward: float
    reliability: Reliability | None

    def text(self) -> str:
        """A line or two and the reliability table."""
        lines = [
            f"accuracy {self.accuracy.text('{:.3f}')} ({self.num_pairs} pairs of {self.num_texts} texts), "
            f"mean reward {self.mean_reward:+.3f}"
        ]
        if self.reliability is not None:
            lines.append(f"expected calibration error {self.reliability.expected_calibration_error:.3f}")
            lines.append(f"{'predicted':>9} {'observed':>9} {'cases':>9}")
            bins = zip(self.reliability.predicted, self.reliability.observed, self.reliability.counts, strict=True)
            lines += [f"{predicted:9.3f} {observed:9.3f} {count:9}" for predicted, observed, count in bins]
        return "\n".join(lines)


def evaluated(scores: FloatArray, data: Comparisons, temperature: float | None, is_rating: bool) -> RewardEvaluation:
    """The evaluation of scores of `data.items`, (n,).

    Args:
        scores: of the texts.
        data: what people said of them.
        temperature: the difference of scores at which the odds are e : 1; None if scores are no log-odds.
        is_rating: whether scores are meant as ratings.
    """
    better, worse = data.pairs
    accuracy, table = pair_accuracy(scores, better, worse), None
    if is_rating and len(data.ratings):
        table = reliability(scores[data.candidates[:, 0]], data.ratings)
    elif temperature is not None:
        # sigmoid of |difference|: the probability of what is predicted, and whether it came so
        gaps = scores[better] - scores[worse]  # (M,)
        table = reliability(1 / (1 + np.exp(-abs(gaps) / temperature)), (np.sign(gaps) + 1) / 2)
    num_texts = len(np.unique(np.concatenate([better, worse])))
    return RewardEvaluation(accuracy, len(better), num_texts, float(scores.mean()), table)
