"""How far raters agree: on the order of texts, and beyond chance (Krippendorff's alpha)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from textgym.arguments import check_argument
from textgym.evaluation.statistics import Interval

Metric = Literal["nominal", "interval"]
RESAMPLES = 1000


def concordance(scores: Sequence[float], ratings: Sequence[float]) -> float:
    """The share of pairs of texts that scores bring into the order of their ratings: Harrell's concordance index.

    Pairs with equal ratings do not count; equal scores are half right.

    Args:
        scores: (n,)
        ratings: (n,)

    Raises:
        ValueError: all ratings are the same.
    """
    a, b, right, count = np.asarray(scores, float), np.asarray(ratings, float), 0.0, 0
    for row in range(len(b) - 1):
        order = np.sign(b[row + 1 :] - b[row])
        right += (np.sign(a[row + 1 :] - a[row]) * order + 1)[order != 0].sum() / 2
        count += int(np.count_nonzero(order))
    if not count:
        raise ValueError("all ratings are the same, so they bring no two texts into an order")
    return float(right / count)


def krippendorff_alpha(units: Sequence[Sequence[float]], metric: Metric = "nominal", *, seed: int = 0) -> Interval:
    """Krippendorff's alpha, 1 where raters always agree and 0 where they agree as by chance, with a 95% interval.

    It is 1 - D_o / D_e. D_o is the mean squared difference of two values of one unit, D_e that of any two values at
    all, among the values that can be paired (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"). With the
    nominal metric and many units it comes near Fleiss' kappa.

    Args:
        units: what the raters of each unit said, in any order; a unit with fewer than two values says nothing.
        metric: how values differ: `"nominal"`, by 1 or not at all; `"interval"`, as numbers.
        seed: of the bootstrap over units; 1.96 times its standard deviation is half the interval.

    Raises:
        ValueError: no unit has two values (there is one rater only, say), or all values are the same.
    """
    check_argument("metric", metric, Metric)
    paired = [np.asarray(unit, float) for unit in units if len(unit) > 1]
    if not paired:
        raise ValueError("agreement needs two raters, but no unit has more than one value")
    values = np.unique(np.concatenate(paired))  # (K,)
    if len(values) == 1:
        raise ValueError(f"all values are {values[0]:g}; agreement beyond chance is not defined where nothing varies")
    gaps = values[:, None] - values  # (K, K)
    squares = gaps**2 if metric == "interval" else (gaps != 0).astype(float)
    counts = np.array([np.bincount(np.searchsorted(values, unit), minlength=len(values)) for unit in paired])  # (U, K)
    disagreements = ((counts @ squares) * counts).sum(-1) / (counts.sum(-1) - 1)  # (U,)

    def alpha(weights: np.ndarray) -> np.ndarray:
        """(B, U) how often each unit is there -> (B,)."""
        totals = weights @ counts  # (B, K)
        with np.errstate(invalid="ignore"):  # a resample in which nothing varies
            expected = ((totals @ squares) * totals).sum(-1) / (totals.sum(-1) - 1)
            return 1 - weights @ disagreements / expected

    u = len(paired)
    resampled = alpha(np.random.default_rng(seed).multinomial(u, np.full(u, 1 / u), RESAMPLES))
    return Interval.normal(alpha(np.ones((1, u)))[0], np.nanstd(resampled))
