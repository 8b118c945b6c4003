"""Readability against the published formulas, and without NLTK's data."""

import sys

import nltk
import pytest
from textstat.backend.utils._get_cmudict import get_cmudict

from textgym.scorers import Readability
from textgym.scorers.readability import WITH_CMUDICT, WITHOUT_DATA
from textgym.testing import check_scorer, make_generations

TEXT = "The cat sat on the mat. Everybody enjoyed the performance."
"""2 sentences, 10 words, 47 letters and 2 full stops; 3 words of more than 6 letters, 7 of at most 3."""

BY_HAND = {
    "automated_readability_index": 4.71 * 49 / 10 + 0.5 * 10 / 2 - 21.43,
    "coleman_liau_index": 0.058 * 470 - 0.296 * 20 - 15.8,  # per 100 words; textstat's coefficient of 0.0588
    "lix": 10 / 2 + 100 * 3 / 10,
    "mcalpine_eflaw": (10 + 7) / 2,
    "rix": 3 / 2,
}


def rewards(scorer, *completions, prompt=""):
    return scorer.evaluate(make_generations([prompt] * len(completions), completions)).rewards.tolist()


@pytest.mark.parametrize("formula", WITHOUT_DATA)
def test_formulas_by_hand(formula):
    assert rewards(Readability(formula), TEXT, prompt="Well. ") == [pytest.approx(BY_HAND[formula])]


@pytest.mark.parametrize("formula", WITHOUT_DATA)
def test_texts_without_words(formula):
    assert rewards(Readability(formula), "", " ", "!!!") == [0, 0, 0]


def test_a_target():
    raw = Readability("lix")
    assert rewards(raw, TEXT) == [35]
    assert rewards(Readability("lix", target=30), TEXT, "") == [-5, -30]
    assert rewards(Readability("lix", target=40.5), TEXT) == [-5.5]
    assert rewards(Readability("lix", of="text"), " The cat sat on the mat.", prompt="Everybody enjoyed it.") != [35]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty place for NLTK's data, which nothing but this test knows."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: pytest.fail("something downloads"))
    get_cmudict.cache_clear()
    yield tmp_path
    get_cmudict.cache_clear()


@pytest.mark.parametrize("formula", WITH_CMUDICT)
def test_formulas_that_need_data_say_so(data, formula):
    message = f"'{formula}' counts syllables and needs NLTK's cmudict, .* python -m nltk.downloader cmudict; without it"
    with pytest.raises(FileNotFoundError, match=message):
        Readability(formula)


@pytest.mark.parametrize("formula", WITHOUT_DATA)
def test_the_others_need_none(data, formula):
    rewards(Readability(formula), TEXT, "Extraordinary!", "我喜欢这部电影。")


def test_syllables(data):
    folder = data / "corpora" / "cmudict"
    folder.mkdir(parents=True)
    (folder / "cmudict").write_text("THE 1 DH AH0\nCAT 1 K AE1 T\nSAT 1 S AE1 T\nHAPPY 1 HH AE1 P IY0\n")
    # 4 words, 1 sentence, 5 syllables
    value = 206.835 - 1.015 * 4 - 84.6 * 5 / 4
    assert rewards(Readability("flesch_reading_ease"), "The happy cat sat.") == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formula": "coleman_liau"}, "formula is 'coleman_liau'; accepted are .*; did you mean 'coleman_liau_index'"),
        ({"formula": 3}, "formula is 3; it must be a text"),
        ({"target": "6"}, "target is '6'"),
        ({"of": "prompt"}, r"of is 'prompt'; accepted are \['completion', 'text'\]"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"scorer 'readability': {message}"):
        Readability(**arguments)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "textstat", None)
    with pytest.raises(ImportError, match=r'the package textstat is missing: pip install "textgym\[text\]"'):
        Readability()


@pytest.mark.parametrize("formula", WITHOUT_DATA)
def test_contract(formula):
    completions = ["", " ", TEXT, "cafe\u0301 काम \u0301", "我喜欢这部电影。", "the cat " * 1250, "a" * 10_000]
    check_scorer(Readability(formula, target=8), completions=completions, pickles=True)
