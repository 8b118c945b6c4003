"""Intervals over seeds, against the printed tables of Student's t and by hand."""

import math

import numpy as np
import pytest

from textgym.evaluation import Interval
from textgym.evaluation.statistics import t_quantile


@pytest.mark.parametrize(
    ("degrees", "coverage", "t"),
    [(1, 0.95, 12.7062), (2, 0.95, 4.3027), (4, 0.95, 2.7764), (29, 0.95, 2.0452), (5, 0.9, 2.015), (3, 0.99, 5.8409)],
)
def test_quantiles_are_those_of_the_tables(degrees, coverage, t):
    assert t_quantile(degrees, coverage) == pytest.approx(t, abs=5e-5)


def test_an_interval_by_hand():
    interval = Interval.of([1.0, 2.0, 4.0])  # s^2 = (16 + 1 + 25) / 9 / 2 = 7/3
    assert interval.mean == pytest.approx(7 / 3)
    assert interval.half_width == pytest.approx(4.302653 * math.sqrt(7 / 3 / 3))
    assert interval.text("{:+.2f}") == "+2.33 ± 3.79"
    assert Interval.of([-0.001]) == Interval(-0.001, None)
    assert Interval.of([-0.001]).text("{:.2f}") == "0.00" and Interval.of([-0.7]).text("{:.2f}") == "-0.70"


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_intervals_hold_the_mean_as_often_as_they_say(n):
    draws = np.random.default_rng(n).normal(3.0, 2.0, (4000, n))
    intervals = [Interval.of(row) for row in draws]
    share = np.mean([abs(i.mean - 3) <= i.half_width for i in intervals])
    assert share == pytest.approx(0.95, abs=0.015)  # four standard errors of a share of 0.95
