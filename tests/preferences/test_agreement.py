"""Krippendorff's alpha against the published example, and in the cases in which it is known."""

import numpy as np
import pytest

from textgym.preferences.agreement import krippendorff_alpha

# Krippendorff 2011, section C: 12 units, 4 observers, missing values
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS, strict=True)]


@pytest.mark.parametrize(("metric", "published"), [("nominal", 0.743), ("interval", 0.849)])
def test_the_published_example(metric, published):
    assert krippendorff_alpha(UNITS, metric).mean == pytest.approx(published, abs=5e-4)


def test_it_is_1_for_raters_that_agree_and_0_for_raters_that_do_not_look():
    assert krippendorff_alpha([[1, 1], [2, 2], [1, 1, 1]]).mean == 1
    blind = krippendorff_alpha(np.random.default_rng(0).integers(3, size=(2000, 3)))
    assert abs(blind.mean) < blind.half_width < 0.03


def test_the_interval_covers_the_value_of_many_units():
    """Two raters who each follow a fair coin with probability q agree beyond chance to q²."""
    rng, inside, q = np.random.default_rng(1), 0, 0.8
    for seed in range(100):
        coin = rng.integers(2, size=(60, 1))
        said = np.where(rng.random((60, 2)) < q, coin, rng.integers(2, size=(60, 2)))
        alpha = krippendorff_alpha(said, seed=seed)
        inside += abs(alpha.mean - q**2) < alpha.half_width
    assert inside >= 87  # of 100, 95 are expected, with a standard deviation of 2.2


def test_what_says_nothing_is_refused():
    with pytest.raises(ValueError, match="agreement needs two raters"):
        krippendorff_alpha([[1], [2], []])
    with pytest.raises(ValueError, match="all values are 1; agreement beyond chance is not defined"):
        krippendorff_alpha([[1, 1], [1, 1]])
    with pytest.raises(ValueError, match="metric is 'ordinal'"):
        krippendorff_alpha(UNITS, "ordinal")
