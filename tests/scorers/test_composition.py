"""Weighted sums and thresholds, over scorers that pay at the end and per token."""

from dataclasses import replace

import numpy as np
import pytest

from textgym.scorers import Keyword, Length, Regex, Scorer, ScorerError, Threshold, WeightedSum
from textgym.testing import check_scorer, make_generations

BATCH = make_generations(["a", "b"], ["ab", "good"])
MIXED = replace(BATCH, ended=np.array([True, False]))


class Steps(Scorer):
    """A token scorer: the number of tokens so far."""

    name = "steps"
    per_token = True

    def score(self, generations):
        return generations.lengths


def test_weighted_sum():
    scores = WeightedSum([Regex("ab"), Keyword("good"), Length(3)], [2.0, -1.0, 3.0]).evaluate(BATCH)
    np.testing.assert_allclose(scores.rewards, [2 * 1 + 0 + 0, 0 - 1 - 3 * 2 / 3])
    np.testing.assert_allclose(scores.components["regex"], [1, 0])
    np.testing.assert_allclose(scores.components["keyword"], [0, 1])
    np.testing.assert_allclose(scores.components["length"], [0, -2 / 3])
    np.testing.assert_allclose(WeightedSum([Regex("ab"), Keyword("good")]).score(BATCH), [1, 1])


def test_a_sum_with_a_token_scorer_pays_per_token():
    scorer = WeightedSum([Steps(), Keyword("good")], [0.5, 10])
    assert scorer.per_token and not WeightedSum([Keyword("good")]).per_token
    np.testing.assert_allclose(scorer.evaluate(MIXED).rewards, [1.5, 2.5])
    np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, [1.5, 12.5])


def test_threshold():
    scorer = Threshold(Length(3), at=-0.5)
    assert scorer.component_names == ("length>=-0.5", "length")
    scores = scorer.evaluate(BATCH)
    np.testing.assert_array_equal(scores.rewards, [1, 0])
    np.testing.assert_array_equal(scores.components["length>=-0.5"], [1, 0])
    np.testing.assert_allclose(scores.components["length"], [0, -2 / 3])
    assert Threshold(Length(3), at=0).evaluate(BATCH).rewards.tolist() == [1, 0]  # at the threshold counts


def test_a_threshold_pays_nothing_to_rows_that_have_not_ended():
    np.testing.assert_array_equal(Threshold(Length(3), at=-9).evaluate(MIXED).rewards, [1, 0])
    np.testing.assert_array_equal(Threshold(Steps(), at=-9).evaluate(MIXED).rewards, [1, 1])


def test_names_must_differ():
    with pytest.raises(
        ValueError, match="scorer 'weighted_sum' has two components named 'regex'; rename one with name="
    ):
        WeightedSum([Regex("a"), Regex("b")])
    assert WeightedSum([Regex("a"), Regex("b", name="b")]).component_names == ("regex", "b")
    with pytest.raises(ValueError, match="scorer 'regex' has two components named 'regex'"):
        Threshold(Regex("a"), at=1, name="regex")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "needs at least one part"),
        (([Regex("a")], [1, 2]), "has 1 parts, but 2 weights"),
        (([Regex("a")], [float("inf")]), r"weights\[0\] is inf; it must be a finite number"),
        (([Regex("a"), Length(1)], [1, float("nan")]), r"weights\[1\] is nan; it must be a finite number"),
        (([Regex("a")], ["2"]), r"weights\[0\] is '2'; it must be a finite number"),
        (([Regex("a")], [True]), r"weights\[0\] is True; it must be a finite number"),
        (([Regex("a")], "2"), "weights is '2'; it must be a list"),
        (([Regex("a")], 2), "weights is 2; it must be a list"),
        (([Regex("a")], b"2"), "weights is b'2'; it must be a list"),
        (([Regex("a")], [10**400]), r"weights\[0\] is 10+; it must be a finite number"),
        (("sentiment",), "scorers is 'sentiment'; it must be a list"),
        (({"name": "sentiment"},), r"scorers is \{'name': 'sentiment'\}; it must be a list"),
    ],
)
def test_weights_are_checked(arguments, message):
    with pytest.raises(ValueError, match=f"scorer 'weighted_sum'.*{message}"):
        WeightedSum(*arguments)


def test_the_threshold_is_checked():
    for at in (float("nan"), float("-inf"), "x", "0.5", None, True):
        with pytest.raises(ValueError, match=f"scorer 'threshold': at is {at!r}; it must be a finite number"):
            Threshold(Regex("a"), at=at)


@pytest.mark.parametrize("name", [3, True, ["a"], {}, b"sum"])
def test_a_name_is_a_text(name):
    for make in (lambda: WeightedSum(["sentiment"], name=name), lambda: Threshold("sentiment", 0.5, name=name)):
        with pytest.raises(ValueError, match=r"the name of a \w+( sum)? is .*; it must be a text"):
            make()


def test_an_error_names_the_part():
    def broken(completions):
        return [float("nan")] * len(completions)

    with pytest.raises(ScorerError, match="scorer 'broken' returned nan"):
        WeightedSum([Regex("a"), broken]).evaluate(BATCH)


def test_a_sum_beyond_float32_names_the_row():
    with pytest.raises(ScorerError, match=r"'weighted_sum' returned 1e\+39, beyond float32's 3.4e\+38, for row 1"):
        WeightedSum([Keyword("good")], weights=[1e39]).evaluate(BATCH)


@pytest.mark.parametrize(
    "scorer",
    [WeightedSum([Steps(), Keyword("good")]), Threshold(WeightedSum([Length(3), Regex("a")]), at=0.1)],
    ids=["sum", "threshold"],
)
def test_contract(scorer):
    check_scorer(scorer, pickles=True)
