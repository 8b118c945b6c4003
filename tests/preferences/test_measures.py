"""Accuracy with its interval, and calibration, by hand and by simulation."""

import numpy as np
import pytest

from textgym.preferences import Preference, Rating
from textgym.preferences.comparisons import compared, rated
from textgym.preferences.measures import evaluated, pair_accuracy, reliability


def test_accuracy_by_hand():
    scores = np.array([3.0, 2.0, 1.0, 1.0])
    found = pair_accuracy(scores, np.array([0, 2, 2]), np.array([1, 1, 3]))  # right, wrong, undecided
    assert found.mean == 0.5
    # residuals .5, -.5, 0; their sums by text .5, 0, -.5, 0; squares .5, so the variance is (.5 - .5) / 9: never
    # below that of independent pairs, .5 / 9
    assert found.half_width == pytest.approx(1.959964 * (0.5 / 9) ** 0.5)


def test_pairs_without_common_texts_have_the_binomial_interval():
    scores = np.arange(200.0)
    better, worse = np.arange(100) * 2 + 1, np.arange(100) * 2
    better[:30], worse[:30] = worse[:30].copy(), better[:30].copy()
    found = pair_accuracy(scores, better, worse)
    assert found.mean == 0.7 and found.half_width == pytest.approx(1.959964 * (0.7 * 0.3 / 100) ** 0.5)


def test_the_interval_covers_the_accuracy_where_all_texts_are_paired_with_all():
    """40 texts of a noisy score, 300 times: the share that 780 pairs taken for independent would cover is far less."""
    rng, covered, too_narrow = np.random.default_rng(0), 0, 0
    truth, means = 2 / np.pi * np.arctan(1.0) / 2 + 0.5, []  # P(sign right) = 1/2 + arcsin(corr) / pi, corr = 1/sqrt 2
    for _ in range(300):
        quality = rng.normal(size=40)
        data = rated([Rating(str(i), value) for i, value in enumerate(quality)])
        found = pair_accuracy(quality + rng.normal(size=40), *data.pairs)
        means.append(found.mean)
        covered += abs(found.mean - truth) <= found.half_width
        too_narrow += abs(found.mean - truth) <= 1.96 * (truth * (1 - truth) / 780) ** 0.5
    assert np.mean(means) == pytest.approx(truth, abs=0.01)
    assert 0.88 < covered / 300 < 0.99 and too_narrow / 300 < 0.7


def test_reliability_by_hand():
    predicted, observed = np.array([0.9, 0.1, 0.8, 0.3]), np.array([1.0, 0.0, 0.0, 1.0])
    table = reliability(predicted, observed, bins=2)
    assert table.predicted.tolist() == pytest.approx([0.2, 0.85]) and table.observed.tolist() == [0.5, 0.5]
    assert table.counts.tolist() == [2, 2] and table.expected_calibration_error == pytest.approx((0.3 + 0.35) / 2)
    assert len(reliability(predicted, observed).counts) == 4  # no empty bins


def test_probabilities_are_those_of_the_reward_and_calibrated_where_it_made_the_data():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=400) * 2
    first, second = rng.integers(0, 200, 20_000), rng.integers(200, 400, 20_000)
    wins = rng.random(20_000) < 1 / (1 + np.exp(scores[second] - scores[first]))
    rows = [
        Preference("", *(map(str, (a, b) if won else (b, a)))) for a, b, won in zip(first, second, wins, strict=True)
    ]
    data = compared(rows)
    of_items = scores[[int(text) for _, text in data.items]]
    errors = {
        scale: evaluated(of_items, data, scale, False).reliability.expected_calibration_error for scale in (0.5, 1, 2)
    }
    assert errors[1] < 0.02 < 0.05 < min(errors[0.5], errors[2])


def test_ratings_are_compared_with_rewards_or_in_pairs():
    data = rated([Rating("a", 1.0), Rating("b", 3.0), Rating("b", 1.0), Rating("c", 2.0)])
    assert data.items == [("", "a"), ("", "b"), ("", "c")] and data.ratings.tolist() == [1, 2, 2]
    better, worse = data.pairs
    assert sorted(better) == [1, 2] and worse.tolist() == [0, 0]
    found = evaluated(np.array([0.0, 1.0, -1.0]), data, None, True)
    assert (found.accuracy.mean, found.num_pairs, found.num_texts, found.mean_reward) == (0.5, 2, 3, 0.0)
    assert found.reliability.observed.tolist() == [2, 1, 2] and found.reliability.predicted.tolist() == [-1, 0, 1]
    assert evaluated(np.zeros(3), data, None, False).reliability is None
    elsewhere = rated([Rating("a", 1.0), Rating("b", 3.0), Rating("c", 2.0, "p"), Rating("d", 0.0, "p")])
    assert sorted(zip(*elsewhere.pairs, strict=True)) == [(1, 0), (2, 3)]  # of one prompt
    assert "accuracy 0.500" in found.text() and "expected calibration error 1.667" in found.text()


def test_many_ratings_are_paired_in_part(monkeypatch):
    monkeypatch.setattr("textgym.preferences.comparisons.MOST_PAIRED", 10)
    values = np.random.default_rng(0).permutation(50) / 10
    found = evaluated(values, rated([Rating(str(i), value) for i, value in enumerate(values)]), None, True)
    assert (found.num_pairs, found.num_texts, found.accuracy.mean) == (45, 10, 1.0)
    assert found.reliability.counts.sum() == 50


def test_no_pair_is_an_error():
    with pytest.raises(ValueError, match="all are ties, or all ratings are the same"):
        evaluated(np.zeros(2), rated([Rating("a", 1.0), Rating("b", 1.0)]), None, True)


def test_groups_have_their_negatives_side_by_side():
    rows = [Preference("p", "best", "bad"), Preference("p", "best", "worse"), Preference("q", "best", "bad")]
    data = compared(rows, grouped=True)
    assert data.items == [("p", "best"), ("p", "bad"), ("p", "worse"), ("q", "best"), ("q", "bad")]
    assert data.candidates.tolist() == [[0, 1, 2], [3, 4, -1]]
    assert [index.tolist() for index in data.pairs] == [[0, 0, 3], [1, 2, 4]]
    with pytest.raises(ValueError, match="row 1 of the preferences is a tie"):
        compared([rows[0], Preference("p", "a", "b", tie=True)], grouped=True)
    with_tie = compared([Preference("p", "a", "b", margin=0.5), Preference("p", "a", "c", tie=True)])
    assert with_tie.margins.tolist() == [0.5, 0] and with_tie.ties.tolist() == [False, True]
    assert [index.tolist() for index in with_tie.pairs] == [[0], [1]]  # a tie is no pair
