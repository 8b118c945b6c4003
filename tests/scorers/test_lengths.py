"""Overlong and CosineLength against the equations of their papers."""

import math

import numpy as np
import pytest

from textgym.scorers import CosineLength, Overlong, Scorer, ScorerError, make_scorer
from textgym.testing import check_scorer, make_generations


def texts(*lengths):
    """Finished texts of so many bytes, the end of text included; the longest one sets the env's limit."""
    return make_generations(["p"] * len(lengths), ["a" * (length - 1) for length in lengths])


def test_overlong_is_equation_13():
    batch = texts(1, 60, 80, 81, 90, 100, 101, 150)
    np.testing.assert_allclose(
        Overlong(100, cache=20).evaluate(batch).rewards, [0, 0, 0, -0.05, -0.5, -1, -1, -1], atol=1e-12
    )
    # without a limit of its own the env's counts, 150
    np.testing.assert_allclose(
        Overlong(cache=100).evaluate(batch).rewards, [0, -0.1, -0.3, -0.31, -0.4, -0.5, -0.51, -1], atol=1e-12
    )
    assert Overlong(100, cache=100).evaluate(texts(1, 99)).rewards.tolist() == [-0.01, -0.99]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tokens": 0, "cache": 1}, "max_tokens is 0; it must be an integer of at least 1"),
        ({"max_tokens": 2.5, "cache": 1}, "max_tokens is 2.5"),
        ({"cache": 0}, "cache is 0; it must be an integer of at least 1"),
        ({"max_tokens": 8, "cache": 9}, "cache is 9; it must be at most max_tokens, 8"),
    ],
)
def test_arguments_of_overlong(arguments, message):
    with pytest.raises(ValueError, match=f"scorer 'overlong': {message}"):
        Overlong(**arguments)


def test_a_cache_beyond_the_limit_of_the_env():
    with pytest.raises(ScorerError, match="'overlong' raised ValueError: cache is 9; it must be at most .*, 8"):
        Overlong(cache=9).evaluate(texts(8))


class IsOdd(Scorer):
    name = "odd"

    def score(self, generations):
        return generations.lengths % 2


def test_cosine_length_by_hand():
    batch = texts(1, 2, 25, 50, 75, 98, 99, 100, 101)
    scores = CosineLength(IsOdd(), max_tokens=100).evaluate(batch)

    def between(first, last, length):
        return last + (first - last) * (1 + math.cos(math.pi * length / 100)) / 2

    want = [between(2, 1, 1), between(-10, 0, 2), between(2, 1, 25), -5, between(2, 1, 75)]
    want += [between(-10, 0, 98), between(2, 1, 99), -10, -10]
    np.testing.assert_allclose(scores.rewards, want)
    assert list(scores.components) == ["cosine_length", "odd"]
    np.testing.assert_array_equal(scores.components["odd"], batch.lengths % 2)
    assert 1 < scores.rewards[4] < scores.rewards[2] < scores.rewards[0] < 2  # shorter is better where right
    assert -10 < scores.rewards[1] < scores.rewards[3] < scores.rewards[5] < 0  # and worse where wrong


def test_the_ends_of_the_curve():
    values = {"right": [1, 0.5], "wrong": (-1, -0.5), "exceeded": -3, "at": 0.5}
    scorer = CosineLength({"name": "regex", "pattern": "a"}, **values)
    # the env's limit is 1000: nearly no length at all, then half of it, then all of it
    batch = make_generations(["p"] * 4, ["a", "b", "ab" * 249 + "a", "b" * 999])
    np.testing.assert_allclose(scorer.evaluate(batch).rewards, [1, -1, 0.75, -3], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"right": 2}, "right is 2; it must be two finite numbers"),
        ({"right": [1]}, r"right is \[1\]; it must be two finite numbers"),
        ({"wrong": [0, math.inf]}, r"wrong is \[0, inf\]; it must be two finite numbers"),
        ({"wrong": "ab"}, "wrong is 'ab'; it must be two finite numbers"),
        ({"at": math.nan}, "at is nan"),
        ({"exceeded": None}, "exceeded is None; it must be a finite number"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be an integer of at least 1"),
        ({"name": "keyword"}, "has two components named 'keyword'"),
    ],
)
def test_arguments_of_cosine_length(arguments, message):
    with pytest.raises(ValueError, match=f"scorer '{arguments.get('name', 'cosine_length')}':? {message}"):
        CosineLength({"name": "keyword", "words": "a"}, **arguments)


def test_a_verdict_per_token_is_none():
    class PerToken(IsOdd):
        per_token = True

    with pytest.raises(ValueError, match="'cosine_length': 'odd' pays per token; it must judge the whole completion"):
        CosineLength(PerToken())


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "overlong", "max_tokens": 12, "cache": 4},
        {"name": "cosine_length", "scorer": {"name": "keyword", "words": "good"}, "max_tokens": 12},
    ],
    ids=lambda spec: spec["name"],
)
def test_contract(spec):
    completions = ["", " good", "cafe\u0301 काम", "我喜欢", "a" * 10_000]
    check_scorer(make_scorer(spec), prompts=["p", ""], completions=completions, pickles=True)
