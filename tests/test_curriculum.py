"""Draws by success rates against their probabilities, and counts by hand."""

import numpy as np
import pytest

from textgym.curriculum import PromptCurriculum


def test_counts_fade_and_are_of_their_prompts():
    known = PromptCurriculum("difficulty", 3, decay=0.5)
    known.update(np.array([0, 0, 2, 2, 2]), np.array([True, True, False, True, False]))
    assert known.counts.tolist() == [[3, 1, 2], [1, 1, 3]]
    known.update(np.array([1]), np.array([False]))
    assert known.counts.tolist() == [[2, 1, 1.5], [1, 2, 2]]


def test_prompts_are_drawn_by_the_variance_of_their_success():
    """Rates 3/4, 1/2 and 1/5: weights 3/16, 1/4 and 4/25; 5 standard errors of 40,000 draws."""
    known = PromptCurriculum("difficulty", 3, decay=1.0)
    known.counts = np.array([[3.0, 1, 1], [1, 1, 4]])
    weights = np.array([3 / 16, 1 / 4, 4 / 25])
    expected = weights / weights.sum()
    drawn = np.bincount(known.draw(np.random.default_rng(0), 40_000), minlength=3) / 40_000
    assert (abs(drawn - expected) < 5 * np.sqrt(expected * (1 - expected) / 40_000)).all()


def test_thompson_takes_the_rate_nearest_to_a_half_and_tries_what_it_does_not_know():
    known, rng = PromptCurriculum("thompson", 3, decay=1.0), np.random.default_rng(0)
    known.counts = np.array([[1e6, 1e6, 9e6], [1.0, 1e6, 1e6]])
    assert set(known.draw(rng, 100).tolist()) == {1}
    known.counts[:, 2] = 1
    known.counts[:, 1] = 4e6, 6e6  # a rate of 0.4: the unknown one is nearer where its draw is in (0.4, 0.6)
    share = (known.draw(rng, 10_000) == 2).mean()
    assert share == pytest.approx(0.2, abs=5 * 0.4 / 100)
