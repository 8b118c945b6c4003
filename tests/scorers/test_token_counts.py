"""TokenCounts against hand values."""

import json

import pytest

from textgym.scorers import TokenCounts, make_scorer
from textgym.testing import check_scorer, make_generations

LETTERS = {"name": "characters", "alphabet": "abcd"}


def rewards(weights, *completions, prompt="bd"):
    scorer = make_scorer(json.loads(json.dumps({"name": "token_counts", "weights": weights})))
    return scorer.evaluate(
        make_generations([prompt] * len(completions), completions, tokenizer=LETTERS)
    ).rewards.tolist()


def test_counts_of_the_completion():
    assert rewards({"1": 1.0, "3": -0.5}, "bbd", "", "dddd", "acac") == [1.5, 0.0, -2.0, 0.0]
    assert rewards({}, "abcd") == [0.0]


def test_eos_is_a_token():
    assert rewards({4: 10, 0: 1}, "a", "") == [11.0, 10.0]


def test_contract():
    check_scorer(TokenCounts({0: 1.0, 5: -2.0}), pickles=True)


@pytest.mark.parametrize(
    "weights",
    [
        *({key: 1.0} for key in ("a", -1, 1.5, True)),
        *({1: weight} for weight in (float("nan"), "x", "1", True, None)),
        {1: 1.0, "1": 2.0},
        [1.0, 2.0],
    ],
    ids=str,
)
def test_weights_that_are_refused(weights):
    with pytest.raises(ValueError, match="scorer 'token_counts': weights is .*; it must map"):
        TokenCounts(weights)


def test_a_token_outside_the_vocabulary():
    with pytest.raises(ValueError, match="the weights name token 5; ids run from 0 to 4"):
        rewards({"5": 1.0}, "a")
