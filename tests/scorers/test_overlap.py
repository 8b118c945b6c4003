"""BLEU, ChrF and ROUGE against values worked out by hand and against what the libraries give."""

import math
import sys

import pytest
from sacrebleu.metrics import BLEU as SacreBLEU

from textgym.scorers import BLEU, ROUGE, ChrF, ScorerError, make_scorer
from textgym.scorers.words import word_tokenizer
from textgym.testing import check_scorer, make_generations


def rewards(scorer, reference, *completions):
    prompts = [{"prompt": "Q: ", "reference": reference}] * len(completions)
    return scorer.evaluate(make_generations(prompts, completions)).rewards.tolist()


def test_bleu_by_hand():
    # 2 of 3 words, 1 of 2 pairs, and 0 of 1 triples, which exponential smoothing makes 1/2 of 1
    assert rewards(BLEU(), "the cat ran", "the cat sat") == [pytest.approx((2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3))]
    # all of 2 words and 1 pair, and 2 words for 3: exp(1 - 3/2)
    assert rewards(BLEU(), "the cat sat", " the cat") == [pytest.approx(math.exp(-0.5))]
    assert rewards(BLEU(max_order=1), "the cat ran", "the cat sat") == [pytest.approx(2 / 3)]
    assert rewards(BLEU(), ["a dog", "the cat"], "the cat", "a dog", "a cat", "bird") == [
        1,
        1,
        pytest.approx(0.5**0.5),
        0,
    ]


def test_equal_texts_have_exactly_one():
    for length in range(1, 9):
        text = " ".join("abcdefgh"[:length])
        for scorer in (BLEU(), ChrF(), ChrF(word_order=2), ROUGE(variant="rouge1"), ROUGE()):
            assert rewards(scorer, text, text) == [1.0]


def test_empty_texts_have_zero():
    for scorer in (BLEU(), ChrF(), ROUGE()):
        assert rewards(scorer, "a cat", "", " \n") == [0, 0]
        assert rewards(scorer, "", "", "a cat") == [0, 0]


def test_bleu_is_sacrebleus():
    references = ["The cat didn't sit, it stood!", "A cat stood there."]
    texts = ["The cat stood there, didn't it?", "a CAT stood", "It stood! It stood!", "—"]
    for tokenizer in ("13a", "intl", "char", "zh", "none"):
        for case_sensitive in (True, False):
            theirs = SacreBLEU(tokenize=tokenizer, effective_order=True, lowercase=not case_sensitive)
            ours = BLEU(tokenizer=tokenizer, case_sensitive=case_sensitive)
            want = [theirs.sentence_score(text, references).score / 100 for text in texts]
            assert rewards(ours, references, *texts) == pytest.approx(want, abs=1e-12)


def test_the_tokenizer_decides_about_scripts():
    right, wrong = "我喜欢这部电影。", "我喜欢那部电影。"
    assert rewards(BLEU(), right, right, wrong) == [1, 0]
    # 8 characters, one of them wrong: 7/8 of them, 5/7, 3/6 and 1/5 of the longer ones
    assert rewards(BLEU(tokenizer="zh"), right, wrong) == [pytest.approx((7 / 8 * 5 / 7 * 3 / 6 * 1 / 5) ** 0.25)]
    assert rewards(ROUGE(), right, right) == [0]
    assert rewards(ROUGE(tokenizer="zh"), right, right, wrong) == [1, pytest.approx(7 / 8)]
    assert rewards(ROUGE(variant="rouge2", tokenizer="char"), right, wrong) == [pytest.approx(5 / 7)]


def test_chrf_by_hand():
    # characters: 2 of 2, and 2 of the reference's 3; pairs: 1 of 1, and 1 of 2; recall counts twice as much
    precision, recall = 1, (2 / 3 + 1 / 2) / 2
    assert rewards(ChrF(), "abc", "ab", "a b", "AB", "xy") == [
        *[pytest.approx(5 * precision * recall / (4 * precision + recall))] * 2,
        0,
        0,
    ]
    assert rewards(ChrF(case_sensitive=False), "ABC", "abc") == [1]
    assert rewards(ChrF(), ["xyz", "abc"], "abc", "xyz") == [1, 1]
    # chrF++ averages over n-grams of words too: the single words differ
    assert rewards(ChrF(word_order=1), "abc", "ab")[0] < rewards(ChrF(), "abc", "ab")[0]


@pytest.mark.parametrize(
    ("variant", "text", "value"),
    [
        ("rouge1", "the cat sat", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
        ("rouge2", "the cat sat", 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)),
        ("rougeL", "sat the cat", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
        ("rougeL", "cat the", 2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4)),
        ("rouge1", "Cat, THE!", 2 * (2 / 2) * (2 / 4) / (2 / 2 + 2 / 4)),
        ("rouge2", "cat the", 0),
    ],
)
def test_rouge_by_hand(variant, text, value):
    assert rewards(ROUGE(variant=variant), "the cat ran fast", text) == [pytest.approx(value)]
    assert rewards(ROUGE(variant=variant), ["none of it", "the cat ran fast"], text) == [pytest.approx(value)]


def letters(text):
    return [letter for letter in text if letter.isalpha()]


def test_a_tokenizer_of_ones_own():
    # 4 of the 5 letters are in the reference's 4
    value = pytest.approx(8 / 9)
    assert rewards(ROUGE(variant="rouge1", tokenizer=letters), "a-b-c-d", "dcba e") == [value]
    named = {"name": "rouge", "variant": "rouge1", "tokenizer": f"{__name__}:letters"}
    assert rewards(make_scorer(named), "a-b-c-d", "dcba e") == [value]
    assert rewards(BLEU(tokenizer=letters), "a-b", "ab") == [1]
    for wrong in (str.upper, lambda text: [1], lambda text: None):
        with pytest.raises(ScorerError, match="the tokenizer made .* of 'ab'; it must make a list of texts"):
            rewards(BLEU(tokenizer=wrong), "ab", "ab")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BLEU(tokenizer="chr"), "'bleu': tokenizer is 'chr'; accepted are .*'zh'.*; did you mean 'char'"),
        (lambda: ROUGE(tokenizer=3), "'rouge': tokenizer is 3; it must be a text, or a function"),
        (lambda: ROUGE(tokenizer="os:sep"), "'rouge': tokenizer 'os:sep' is '/'; it must be a function"),
        (lambda: ROUGE(tokenizer="os:nothing"), "'rouge': tokenizer 'os:nothing': module 'os' has no 'nothing'"),
        (
            lambda: ROUGE(variant="rouge3"),
            r"'rouge': variant is 'rouge3'; accepted are \['rouge1', 'rouge2', 'rougeL'\]",
        ),
        (lambda: BLEU(max_order=0), "'bleu': max_order is 0; it must be an integer of at least 1"),
        (lambda: BLEU(case_sensitive=1), "'bleu': case_sensitive is 1; it must be True or False"),
        (lambda: ChrF(word_order=3), r"'chrf': word_order is 3; accepted are \[0, 1, 2\]"),
    ],
)
def test_arguments_that_are_refused(make, message):
    with pytest.raises(ValueError, match=f"scorer {message}"):
        make()


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge"])
def test_a_missing_package_names_the_extra(monkeypatch, name):
    for module in ("sacrebleu", "rouge_score"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=r"the package (sacrebleu|rouge_score) is missing: pip install \"textgym\[overlap\]\""
    ):
        make_scorer(name)


def test_tokenizers_whose_own_packages_are_missing_say_so():
    with pytest.raises(RuntimeError, match=r"sacrebleu\[ja\]"):
        word_tokenizer("ja-mecab")


@pytest.mark.parametrize(
    "scorer",
    [BLEU(), BLEU(tokenizer="zh"), ChrF(), ChrF(word_order=2), ROUGE(), ROUGE(variant="rouge2", tokenizer="char")],
    ids=lambda s: s.name,
)
def test_contract(scorer):
    prompts = [{"prompt": "a", "reference": "the cat"}, {"prompt": "b", "reference": ["我喜欢", "ca\u0301fe", "काम"]}]
    completions = ["", " the cat sat.", "我喜欢", "ca\u0301fe काम \u0301", "the cat " * 1250]
    check_scorer(scorer, prompts=prompts, completions=completions, pickles=True)
