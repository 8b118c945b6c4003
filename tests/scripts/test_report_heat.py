"""The texts of a report, token by token: their characters, their KL, and which tokens the reward is owed to."""

import math
import re

import pytest

from scripts.reports.heat import END, PART, Heat, Text, Token, colour, heat_of, pieces_of
from scripts.reports.page import page
from scripts.reports.runs import TOKENS, Run
from tests.conftest import small_llama
from tests.helpers.policies import vector_env
from textgym.evaluation import ModelPolicy
from textgym.scorers import Scorer
from textgym.training import TokenModel


def policy(n=8, **kwargs):
    """A model with a reference of other weights."""
    env = vector_env(n, autoreset_mode="Disabled", **kwargs)
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, small_llama(seed=1)), small_llama(seed=2), seed=0)


def begins_with_a(completion_ids):
    return [float(ids[0] == 0) for ids in completion_ids]


def test_credit_stands_at_the_token_that_decides():
    samples = 400
    heat = heat_of(policy(n=32, scorer=begins_with_a), 32, samples)
    firsts = [text.tokens[0] for text in heat.texts]
    assert {text.reward for text in heat.texts} == {0.0, 1.0}
    for text, first in zip(heat.texts, firsts, strict=True):
        assert all(token.credit == 0 for token in text.tokens[1:])
        if text.reward:  # 1 minus the share of draws that are this token again, a(x_1)
            again = math.exp(first.reference)
            assert abs(first.credit - (1 - again)) < 5 * math.sqrt(again * (1 - again) / samples)
        else:
            assert first.credit < 0
    assert heat.full_credit == max(abs(first.credit) for first in firsts)
    assert "mean reward of 400 texts" in heat.credit


class Vowels(Scorer):
    """Pays 1 for the token "a", as soon as it is written."""

    name, per_token = "vowels", True

    def score(self, generations):
        return [float(text.endswith("a")) for text in generations.completions]


def test_credit_of_a_scorer_that_pays_per_token_is_what_it_pays():
    heat = heat_of(policy(scorer=Vowels()), 8, 4)
    tokens = [token for text in heat.texts for token in text.tokens]
    assert {token.credit for token in tokens if token.text == "a"} == {1.0}
    assert {token.credit for token in tokens if token.text not in ("a", END)} == {0.0}
    assert heat.credit == "what the scorer paid for the token"


@pytest.mark.parametrize("samples", [0, 4])
def test_texts_without_credit(samples):
    turns = {"partner": lambda columns, turns: "b", "eot_token_ids": [3]} if samples else {}
    heat = heat_of(policy(**turns), 3, samples)
    assert heat.credit == "" and len(heat.texts) == 3 and heat.full_credit == 0
    assert all(token.credit is None for text in heat.texts for token in text.tokens)


def test_a_page_shows_both_lines_of_a_text_or_one():
    text = Text("a <b>", [Token(" c", -1.0, -3.0, 0.5), Token(END, -2.0, -1.0, -0.25)], 1.0)
    run = Run("x", {TOKENS: [8]}, [], {})
    html = page(run, Heat([text], "this is it"))
    assert (
        "reward +1.000, KL 1.00 nats" in html
        and "a &lt;b&gt;" in html
        and "<b>credit</b>: this is it." in html
        and "full at 0.5." in html
    )
    assert re.findall(r'title="credit (\S+)">([^<]*)<', html) == [("+0.500", " c"), ("-0.250", END)]
    assert re.findall(r"difference (\S+)\"", html) == ["+2.00", "-1.00"]
    assert "credit" not in page(run, Heat([text], "")).partition("<body>")[2]


def test_pieces_join_bytes_to_characters():
    assert pieces_of(["a", "a\ufffd", "a\u00e9", "a\u00e9 b", "a\u00e9 b"], True) == ["a", PART, "\u00e9", " b", END]
    assert pieces_of(["a", "a\ufffd"], False) == ["a", PART]


def test_colours():
    assert colour(0.0, 4).endswith("0.00)") and colour(9.0, 4) == colour(4.0, 4) != colour(-4.0, 4)
    assert colour(1.0, 4) != colour(2.0, 4) and colour(0.0, 0.0).endswith("0.00)")
