"""Pairs out of ratings against counting by hand, and raters that are made up against their own model."""

import math
from itertools import combinations

import pytest

from textgym.preferences import Preference, Rating
from textgym.preferences.pairs import make_pairs, rater_agreement, rater_halves, split_of
from textgym.preferences.raters import SyntheticRater


def rated(text, *ratings, prompt=""):
    return Rating(text, sum(ratings) / len(ratings), prompt, ratings)


A, B, C, D = rated("a", 3, 1), rated("b", 0, 2), rated("c", 2, 2), rated("d", -4, -4)


def test_agreement_is_the_share_of_pairs_of_raters():
    assert rater_agreement(A, B) == (2 + 0.5 * 0 + 1) / 4  # 3>0, 3>2, 1>0, 1<2
    assert rater_agreement(C, B) == (1 + 0.5 + 1 + 0.5) / 4
    assert rater_agreement(A, D) == 1 and rater_agreement(D, A) == 0


def test_all_pairs_with_their_margins():
    pairs = {frozenset((p.chosen, p.rejected)): p for p in make_pairs([A, B, C, D], 6)}
    assert len(pairs) == 6
    assert pairs[frozenset("ac")] in (Preference("", "a", "c", tie=True), Preference("", "c", "a", tie=True))
    assert pairs[frozenset("ab")] == Preference("", "a", "b", margin=1.0)
    assert pairs[frozenset("bd")] == Preference("", "b", "d", margin=5.0)


def test_pairs_on_which_raters_do_not_agree_are_left_out():
    agreed = {(p.chosen, p.rejected) for p in make_pairs([A, B, C, D], 3, agreement=0.8)}
    assert agreed == {("a", "d"), ("b", "d"), ("c", "d")}
    assert ("a", "b") in {(p.chosen, p.rejected) for p in make_pairs([A, B, C, D], 5, agreement=0.75)}
    with pytest.raises(ValueError, match="num_pairs is 4, but 4 ratings have only 3 pairs .* agree to 0.8"):
        make_pairs([A, B, C, D], 4, agreement=0.8)
    with pytest.raises(ValueError, match="the text 'e' has 0 ratings of single raters; agreement and halves need two"):
        make_pairs([A, Rating("e", 2.5)], 1, agreement=0.6)
    assert make_pairs([A, Rating("e", 2.5)], 1) == [Preference("", "e", "a", margin=0.5)]


def test_pairs_have_one_prompt_and_two_texts():
    ratings = [rated(t, k, prompt=p) for k, (p, t) in enumerate([("p", "x"), ("p", "y"), ("q", "x"), ("q", "z")])]
    assert {(p.prompt, p.chosen, p.rejected) for p in make_pairs(ratings, 2)} == {("p", "y", "x"), ("q", "z", "x")}
    for few in (ratings[:1], [], [rated("x", 1), rated("x", 2)]):
        with pytest.raises(ValueError, match="have only 0 pairs of different texts"):
            make_pairs(few, 1)


def test_every_pair_is_as_likely_as_any_other():
    ratings = [rated(text, k) for k, text in enumerate("vwxyz")]
    counts = dict.fromkeys(combinations("zyxwv", 2), 0)
    for seed in range(2000):
        (pair,) = make_pairs(ratings, 1, seed=seed)
        counts[pair.chosen, pair.rejected] += 1
    statistic = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert statistic < 27.9  # chi-square of 9 degrees, p = 0.001
    assert make_pairs(ratings, 4, seed=3) == make_pairs(ratings, 4, seed=3) != make_pairs(ratings, 4, seed=4)


def test_halves_share_no_rater_and_make_up_the_whole():
    first, second = rater_halves([rated("a", 1, 2, 3, 4, 5), rated("b", 0, 4)])
    assert [one.ratings for one in first] == [(1, 3, 5), (0,)] and [one.rating for one in first] == [3, 0]
    assert [one.ratings for one in second] == [(2, 4), (4,)] and [one.text for one in second] == ["a", "b"]
    with pytest.raises(ValueError, match="the text 'x' has 1 ratings of single raters"):
        rater_halves([A, rated("x", 1)])


def test_a_text_is_held_out_whatever_stands_beside_it():
    ratings = [rated(f"text {k}", k) for k in range(1000)]
    held_out = split_of(ratings, "test")
    assert split_of(ratings, "train") == [one for one in ratings if one not in held_out]
    assert 150 < len(held_out) < 250 and split_of(ratings[::-1], "test") == held_out[::-1]


def test_a_rater_that_is_made_up_follows_its_model():
    """Frequencies against Davidson's probabilities, within four standard errors."""
    rater = SyntheticRater(len, noise=2.0, ties=0.5, seed=1)
    n, gap = 4000, 3 / 2.0
    said = [rater.judge("four", "f") for _ in range(n)]
    weights = {"first": math.exp(gap / 2), "tie": 0.5, "second": math.exp(-gap / 2)}
    for verdict, weight in weights.items():
        p = weight / sum(weights.values())
        assert abs(said.count(verdict) / n - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_a_rater_without_noise_is_right():
    rater = SyntheticRater(len, noise=0)
    assert [rater.judge("ab", "c"), rater.judge("c", "ab"), rater.judge("c", "d")] == ["first", "second", "tie"]
    assert "tie" not in {SyntheticRater(len, seed=s).judge("c", "d") for s in range(50)}
    with pytest.raises(ValueError, match="noise is -1; it must be at least 0"):
        SyntheticRater(len, noise=-1)
