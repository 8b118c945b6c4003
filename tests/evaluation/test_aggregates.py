"""Aggregates over tasks: by hand, beside scipy's definitions, and how often their intervals hold the truth."""

import math

import numpy as np
import pytest

from textgym.evaluation import Interval, interquartile_mean, probability_of_improvement, stratified_bootstrap
from textgym.evaluation import stratified_mean as student

RAGGED = [[0.1, 0.5, 0.9, 0.4, 0.2], [1.0, -3.0, 0.3], [0.7, 0.8]]
OTHERS = [[0.3, 0.2], [0.3, 0.4, 0.1, 0.2], [0.7]]


def test_the_interquartile_mean_by_hand():
    assert interquartile_mean([[8, 1, 2, 3], [4, 5, 6, 700]]) == (3 + 4 + 5 + 6) / 4
    assert interquartile_mean([[1, 2, 30]]) == 11  # 3 // 4 = 0 are left out
    assert interquartile_mean([[5, 1, 2, 30, 3]]) == (2 + 3 + 5) / 3
    np.testing.assert_array_equal(
        interquartile_mean([np.array([[1, 2], [3, 4]]), np.array([[9, 0], [5, 5]])]), [1.5, 4.5]
    )


def test_the_probability_of_improvement_by_hand():
    # The first task: 3 > 1, 3 = 3, 2 > 1, 2 < 3 are 2.5 of 4; the second: none of 2.
    assert probability_of_improvement([[3, 2], [0]], [[1, 3], [1, 2]]) == (2.5 / 4 + 0) / 2
    assert probability_of_improvement([[1, 1]], [[1]]) == 0.5
    assert probability_of_improvement(RAGGED, OTHERS) + probability_of_improvement(OTHERS, RAGGED) == pytest.approx(1)


def test_beside_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n in (1, 3, 4, 7, 20, 21):
        tasks = [rng.normal(size=n), rng.normal(size=n + 2).round(1)]
        assert interquartile_mean(tasks) == pytest.approx(stats.trim_mean(np.concatenate(tasks), 0.25))
        others = [rng.normal(size=n + 1), rng.normal(size=5).round(1)]
        found = [stats.mannwhitneyu(x, y).statistic / len(x) / len(y) for x, y in zip(tasks, others, strict=True)]
        assert probability_of_improvement(tasks, others) == pytest.approx(np.mean(found))
    x, y = rng.normal(size=5), rng.normal(scale=3, size=8)
    interval = stats.ttest_ind(x, y, equal_var=False).confidence_interval()  # Welch's, of the difference of two means
    half_width = student([x, -y]).half_width
    assert 2 * half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-6)
    reference = stats.bootstrap(
        (x,),
        lambda x, axis: interquartile_mean([np.moveaxis(x, axis, -1)]),
        method="percentile",
        rng=0,
        n_resamples=20_000,
    )
    found = stratified_bootstrap(interquartile_mean, [x], resamples=20_000)
    assert found.standard_error == pytest.approx(reference.standard_error, rel=0.05)
    assert found.interval() == pytest.approx(tuple(reference.confidence_interval), abs=0.1 * reference.standard_error)


def test_the_bootstrap_by_enumeration():
    """The mean of two runs of each of two tasks: 16 resamples, which are known."""
    found = stratified_bootstrap(
        lambda s: np.mean([task.mean(-1) for task in s], axis=0), [[0, 4], [0, 2]], resamples=20_000
    )
    values = [((a + b) / 2 + (c + d) / 2) / 2 for a in (0, 4) for b in (0, 4) for c in (0, 2) for d in (0, 2)]
    assert found.value == np.mean(values) == 1.5
    assert found.standard_error == pytest.approx(np.std(values), rel=0.03)
    assert found.interval() == (0, 3)  # each end has a chance of 1/16 > 2.5%
    assert stratified_bootstrap(probability_of_improvement, [[1, 1]], [[0]]).interval() == (1, 1)


def test_students_interval_over_tasks():
    assert student([[1.0, 2.0, 4.0]]).half_width == pytest.approx(Interval.of([1.0, 2.0, 4.0]).half_width)
    assert student([[1.0], [2.0, 3.0]]) == Interval(1.75, None)
    assert student([[1.0, 1.0], [2.0, 2.0]]) == Interval(1.5, 0.0)
    # Equal variances and numbers: the degrees add up, s^2 / n = 1/3 twice, t(4) = 2.7764.
    assert student([[1, 2, 3], [4, 5, 6]]).half_width == pytest.approx(2.7764 * math.sqrt(2 / 3) / 2, rel=1e-4)


@pytest.mark.parametrize("scores", [[], [[]], [[1.0, math.nan]], [[1.0], []], [[[1.0]]]])
def test_clear_errors(scores):
    for call in (lambda: stratified_bootstrap(interquartile_mean, scores), lambda: student(scores)):
        with pytest.raises(ValueError, match="no task to aggregate|list of finite numbers, one or more, not"):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_how_often_intervals_hold_the_truth(tasks):
    """5 normal runs of each task, whose mean and interquartile mean are 0; within three standard errors of a share."""
    draws = np.random.default_rng(tasks).normal(size=(1000, tasks, 5))
    held = [student(draw) for draw in draws]
    assert np.mean([abs(i.mean) <= i.half_width for i in held]) == pytest.approx(0.95, abs=0.022)
    found = [stratified_bootstrap(interquartile_mean, draw, resamples=500, seed=i) for i, draw in enumerate(draws)]
    share = np.mean([e.low <= 0 <= e.high for e in found])
    assert share == pytest.approx(0.91, abs=0.03)
