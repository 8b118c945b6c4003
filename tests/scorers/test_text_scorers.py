"""Keyword, Regex, Length and Sentiment against hand values."""

import pickle
import sys

import pytest

from textgym.scorers import Keyword, Length, MoreWords, Regex, Sentiment
from textgym.testing import check_scorer, make_generations


def rewards(scorer, *completions, prompt="The art was"):
    return scorer.evaluate(make_generations([prompt] * len(completions), completions)).rewards.tolist()


def test_keyword_is_a_whole_word_of_the_completion():
    assert rewards(Keyword("art"), " fine", " Art.", " party", "", "art") == [0, 1, 0, 0, 1]
    assert rewards(Keyword(["so good", "c++"]), "so  good", "not So good!", "c++", "c+") == [0, 1, 1, 0]
    assert rewards(Keyword("Art", case_sensitive=True), "art", "Art") == [0, 1]


@pytest.mark.parametrize("words", ["", [], [""], ["a", 1], 3, None, {"a": 1}])
def test_keyword_needs_words(words):
    with pytest.raises(ValueError, match="scorer 'keyword': words is .*; it must be a word, or a list of one or more"):
        Keyword(words)


def test_more_words_counts_every_whole_word():
    scorer = MoreWords(["she", "her"], ["he", "him"])
    assert rewards(scorer, "She saw her.", "she, he", "he saw her and she", "", "there is a sheep") == [1, 0, 1, 0, 0]
    assert rewards(scorer, "he him she", prompt="she her she her") == [0]  # the prompt does not count
    assert rewards(MoreWords("She", "He", case_sensitive=True), "She he", "she", "She He") == [1, 0, 0]


@pytest.mark.parametrize(("words", "than"), [([], "he"), ("she", []), ("she", [""]), ("she", 3)])
def test_more_words_needs_words_on_both_sides(words, than):
    wrong = "words" if not words else "than"
    with pytest.raises(ValueError, match=f"scorer 'more_words': {wrong} is .*; it must be a word, or a list of"):
        MoreWords(words, than)


def test_regex_coverage():
    assert rewards(Regex("ab"), "abcd", "ababab", "", "ba", "abab" + "a") == [0.5, 1, 0, 0, 0.8]
    assert rewards(Regex("a*"), "baab") == [0.5]  # empty matches cover nothing
    assert rewards(Regex("(?i)AB(c)?"), "abcd") == [0.75]


def test_length_counts_eos():
    # "abc" and EOS are 4 tokens
    assert rewards(Length(4), "abc", "", "abcdefg", "abcd") == [0, -0.75, -1, -0.25]


def test_sentiment_is_vaders_compound_of_the_whole_text():
    # "good" has valence 1.9 in the lexicon: 1.9 / sqrt(1.9² + 15) = 0.4404
    assert rewards(Sentiment(), " good", prompt="it is") == [0.4404]
    assert rewards(Sentiment(), " film", prompt="good") == [0.4404]
    # negation multiplies by -0.74: -1.406 / sqrt(1.406² + 15) = -0.3412
    assert rewards(Sentiment(), " good", prompt="it is not") == [-0.3412]
    assert rewards(Sentiment(), "", prompt="") == [0]


def test_sentiment_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ImportError, match="'sentiment' needs vaderSentiment: pip install vaderSentiment"):
        Sentiment()


@pytest.mark.parametrize(
    "scorer", [Keyword("good"), MoreWords("a", "film"), Regex("a."), Length(7), Sentiment()], ids=lambda s: s.name
)
def test_contract(scorer):
    check_scorer(scorer, pickles=True)
    assert pickle.loads(pickle.dumps(scorer)).name == scorer.name
