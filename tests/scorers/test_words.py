"""What words are, and the scorer of repetition, which counts them."""

import pytest

from textgym.scorers import Repetition
from textgym.scorers.words import word_tokenizer, words_in
from textgym.testing import check_scorer, make_generations


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" -- '' … _", []),
        ("The film, the FILM!", ["the", "film", "the", "film"]),
        ("Don't 'quote' rock’n’roll’", ["don't", "quote", "rock'n'roll"]),
        ("well-made snake_case 3.14", ["well", "made", "snake", "case", "3", "14"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("काम हिन्दी", ["काम", "हिन्दी"]),  # their vowel signs are marks, which end a word for the \w of `re`
        ("Straße ΣΊΣΥΦΟΣ", ["strasse", "σίσυφοσ"]),
        ("我喜欢这部电影。很好", ["我喜欢这部电影", "很好"]),
        ("👍 x² 𝟙", ["x²", "𝟙"]),
    ],
)
def test_words_of_several_scripts(text, words):
    assert words_in(text) == words
    assert word_tokenizer("words")(text) == words


def penalties(scorer, *completions):
    return scorer.evaluate(make_generations(["aaaa"] * len(completions), completions)).rewards.tolist()


def test_repetition_of_tokens():
    """The tokens are bytes here, and the end of text is one."""
    # all 5 differ; a and EOS of a, a, a, EOS; aa and a-EOS of aa, aa, a-EOS
    assert penalties(Repetition(1), "abcd", "aaa", "") == [0, 2 / 4 - 1, 0]
    assert penalties(Repetition(2), "abcd", "aaa", "a") == [0, pytest.approx(2 / 3 - 1), 0]
    assert penalties(Repetition(), "abcabcabc") == [4 / 8 - 1]  # abc, bca, cab and bc-EOS of 8
    assert penalties(Repetition(5), "aaaa", "aaa") == [0, 0]  # one n-gram, and none


def test_repetition_of_words():
    # the b c the b c the: the-b, b-c, c-the, of 6
    assert penalties(Repetition(2, tokenizer="words"), "The b, c; the b? c the", "the b", "the", "") == [-0.5, 0, 0, 0]
    assert penalties(Repetition(1, tokenizer="char"), "哈哈哈哈") == [-0.75]
    assert penalties(Repetition(1, tokenizer=str.split), "a b a b") == [-0.5]


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 1.5}, {"n": True}, {"tokenizer": "letters"}, {"tokenizer": 1}])
def test_arguments_that_are_refused(arguments):
    with pytest.raises(ValueError, match=f"scorer 'repetition': {next(iter(arguments))} is "):
        Repetition(**arguments)


@pytest.mark.parametrize("scorer", [Repetition(), Repetition(2, tokenizer="words")], ids=["tokens", "words"])
def test_contract(scorer):
    completions = ["", "a", "a a a a.", "我喜欢 我喜欢", "cafe\u0301 काम \u0301", "the cat " * 1250]
    check_scorer(scorer, completions=completions, pickles=True)
