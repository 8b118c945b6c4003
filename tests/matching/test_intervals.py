"""Intervals against tables, closed forms and repeated samples of distributions whose mean is known."""

import math

import numpy as np
import pytest
import torch

from textgym.matching import Estimate
from textgym.matching.intervals import SHARE, interval, shares, skewed, t_quantile, unseen, wilson


def covered(draw, mean, n, repetitions=1000, seed=0, **kwargs):
    """The share of repetitions whose interval holds the mean, of those that have one."""
    generator = np.random.default_rng(seed)
    found = [Estimate.mean_of(torch.from_numpy(draw(generator, n)), **kwargs) for _ in range(repetitions)]
    held = [low <= mean <= high for low, high in (e.interval() for e in found) if not math.isnan(low)]
    return np.mean(held), len(held)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval_is_the_published_one(successes, n, low, high):
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3; and 1 - p turns it round."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_shares_of_0_and_1_have_the_interval_of_agresti_and_coull():
    """With z^2 / 2 successes and failures added: centre (x + z^2 / 2) / (n + z^2), and the normal interval about it."""
    z, x, n = 1.96, 9, 10
    p = (x + z**2 / 2) / (n + z**2)
    half = z * math.sqrt(p * (1 - p) / (n + z**2))
    low, high = shares(torch.tensor([1.0] * 9 + [0.0]).double())
    assert (low, high) == pytest.approx((p - half, min(p + half, 1.0)), abs=1e-4)


def pass_at_4(generator, n):
    """Of n prompts, from 8 answers to each: most are nearly always right, one in twenty is nearly never."""
    chances = generator.choice([0.95, 0.6, 0.05], n, p=[0.8, 0.15, 0.05])
    wrong = 8 - generator.binomial(8, chances)
    return 1 - np.array([math.comb(w, 4) for w in wrong]) / math.comb(8, 4)


def test_shares_of_prompts_hold_also_where_few_are_hard():
    exact = 1 - 0.8 * 0.05**4 - 0.15 * 0.4**4 - 0.05 * 0.95**4
    share, intervals = covered(pass_at_4, exact, 32, limits=SHARE)
    assert intervals == 1000 and 0.93 <= share <= 0.99
    assert covered(pass_at_4, exact, 32)[0] < 0.9  # what it is for: Hall's interval would not hold


def test_halls_interval_solves_his_transformation():
    """Its ends are where the transformed T is the quantile; without skewness it is Student's."""
    n, error = 20, 0.3
    for skewness in (-2.0, 0.5, 3.0):
        a = skewness / math.sqrt(n)
        for end, q in zip(skewed(1.0, error, skewness, n), (1, -1), strict=True):
            t = (1.0 - end) / error
            transformed = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
            assert transformed == pytest.approx(q * t_quantile(n - 1), abs=1e-9)
    assert skewed(1.0, error, 0.0, n) == pytest.approx(skewed(1.0, error, 1e-5, n), abs=1e-4)
    assert skewed(1.0, error, 0.0, n)[1] == pytest.approx(1 + 2.0930 * error, abs=1e-4)


def test_what_nothing_shows():
    assert unseen(1.0, 96, (0.0, 1.0)) == pytest.approx(wilson(96, 96))
    assert unseen(3.0, 96, (1.0, 5.0)) == pytest.approx((3 - 2 * 0.038476, 3 + 2 * 0.038476), abs=1e-5)
    same = torch.full((50,), 2.5)
    assert Estimate.mean_of(same)[:2] == (2.5, 0.0) and all(map(math.isnan, Estimate.mean_of(same).interval()))
    assert Estimate.mean_of(same, (0.0, 5.0)).interval() == pytest.approx(unseen(2.5, 50, (0.0, 5.0)))
    assert Estimate.mean_of(torch.ones(50)).interval() == pytest.approx(wilson(50, 50))
    for few in (torch.ones(1), torch.zeros(0)):
        assert all(map(math.isnan, Estimate.mean_of(few)[1:]))
    huge = Estimate.mean_of(torch.tensor([1e9 + 0.1] * 7, dtype=torch.float64))  # rounding is no spread
    assert math.isnan(huge.low)


def test_values_and_errors_by_hand():
    x = torch.tensor([1.0, 2.0, 6.0])
    found = Estimate.mean_of(x)
    assert found[:2] == pytest.approx((3.0, math.sqrt(7 / 3)))
    assert found.interval() == pytest.approx(
        skewed(3.0, math.sqrt(7 / 3), 0.595170, 3), rel=1e-5
    )  # 18 / 3 / (14/3)^1.5
    ratio = Estimate.ratio_of(x, torch.tensor([1.0, 1.0, 4.0]))
    residuals = np.array([1 - 1.5, 2 - 1.5, 6 - 6]) / 2
    assert ratio[:2] == pytest.approx((1.5, residuals.std(ddof=1) / math.sqrt(3)))
    assert Estimate.mean_of(torch.tensor([0.0, 1.0, 1.0])).interval() == pytest.approx(wilson(2, 3))


def test_a_normal_estimate():
    assert Estimate.normal(2.0, 0.5).interval() == pytest.approx((1.02, 2.98), abs=1e-4)


def test_an_interval_keeps_to_its_limits():
    influence = torch.tensor([0.0, 0.0, 0.0, 4.0])
    assert interval(1.0, influence, (0.5, 2.0))[1] == (0.5, 2.0)
    assert interval(-1e-3, influence / 1e6, (0.0, math.inf))[1] == (0.0, 0.0)
    error, ends = interval(1.0, torch.ones(9), more=0.5)  # all of the error comes from elsewhere
    assert error == 0.5 and ends == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "draw", "mean"),
    [
        ("normal", lambda g, n: g.normal(size=n), 0.0),
        ("exponential", lambda g, n: g.exponential(size=n), 1.0),
        ("lognormal", lambda g, n: np.exp(g.normal(size=n)), math.exp(0.5)),
        ("rarely far off", lambda g, n: 1 - (g.random(n) < 6 / n) * g.uniform(0.5, 1, n), 1 - 0.75 * 6 / 64),
        ("a rare success", lambda g, n: (g.random(n) < 4 / n).astype(float), 4 / 64),
        ("never a failure", lambda g, n: np.ones(n), 0.98),
        ("half", lambda g, n: (g.random(n) < 0.5).astype(float), 0.5),
    ],
)
def test_intervals_hold_the_mean(name, draw, mean):
    """In 90 to 99 of 100 of 1,000 samples of 64; the unseen failure is always covered, as it must be."""
    share, intervals = covered(draw, mean, 64)
    assert intervals >= 990
    assert share == 1 if name == "never a failure" else 0.9 <= share <= 0.99, share


def test_students_interval_would_not():
    """What the correction for skewness is for."""
    generator = np.random.default_rng(0)
    x = 1 - (generator.random((1000, 64)) < 4 / 64) * generator.uniform(0.5, 1, (1000, 64))
    half = t_quantile(63) * x.std(1, ddof=1) / 8
    assert (abs(x.mean(1) - (1 - 0.75 * 4 / 64)) <= half).mean() < 0.92
    assert covered(lambda g, n: 1 - (g.random(n) < 4 / n) * g.uniform(0.5, 1, n), 1 - 0.75 * 4 / 64, 64)[0] > 0.94
