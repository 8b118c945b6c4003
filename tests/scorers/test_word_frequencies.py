"""WordFrequencies against hand values, and its components as the moments of a distribution over texts."""

import math

import numpy as np
import pytest
import torch

from textgym.matching import Distributional
from textgym.scorers import ScorerError, WordFrequencies, make_scorer
from textgym.testing import check_scorer, make_generations

TOPIC = {"film": 3, "actor": 1}


def scores(scorer, *completions):
    return scorer.evaluate(make_generations(["film film"] * len(completions), completions))


def test_by_hand():
    rewards = scores(
        WordFrequencies(TOPIC), "film film the Film, actor!", "film actor", "actor", "film", "the", ""
    ).rewards
    half = -(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    np.testing.assert_allclose(rewards, [0, half, *[math.log(0.25)], math.log(0.75), *[math.log(0.25)] * 2], atol=1e-12)
    assert max(rewards) <= 0


def test_others_are_a_class():
    scorer = WordFrequencies(TOPIC, other=0.5)
    assert scorer.frequencies == {"film": 0.375, "actor": 0.125}
    rewards = scores(scorer, "film film film actor a b c d", "a b", "film actor a b", "").rewards
    mixed = -(0.25 * math.log(0.25 / 0.375) + 0.25 * math.log(0.25 / 0.125) + 0.5 * math.log(0.5 / 0.5))
    np.testing.assert_allclose(rewards, [0, math.log(0.5), mixed, math.log(0.125)], atol=1e-12)
    assert scores(WordFrequencies({"film": 7}, other=0.9), "film " + "a " * 9).rewards == pytest.approx([0], abs=1e-12)


def test_nothing_is_better_than_the_wanted_frequencies():
    """Gibbs' inequality, in floating point too."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, 9, size=5)
        frequencies = {f"w{i}": int(count) for i, count in enumerate(counts)}
        text = " ".join(f"w{i} " * count for i, count in enumerate(counts))
        rewards = scores(WordFrequencies(frequencies), text, text + " w0").rewards
        assert -1e-12 < rewards[0] <= 0 and rewards[1] < rewards[0]


def test_the_excess_of_each_word():
    result = scores(WordFrequencies(TOPIC, per_word=True), "film film the actor", "film actor actor", "none", "")
    assert list(result.components) == ["word_frequencies", "word_frequencies/film", "word_frequencies/actor"]
    np.testing.assert_allclose(result.components["word_frequencies/film"], [2 - 0.75 * 3, 1 - 0.75 * 3, 0, 0])
    np.testing.assert_allclose(result.components["word_frequencies/actor"], [1 - 0.25 * 3, 2 - 0.25 * 3, 0, 0])
    with_others = scores(WordFrequencies(TOPIC, other=0.5, per_word=True, name="topic"), "film film the actor")
    np.testing.assert_allclose(with_others.components["topic/film"], [2 - 0.375 * 4])
    assert list(with_others.components) == ["topic", "topic/film", "topic/actor"]


@pytest.mark.parametrize("other", [0.0, 0.6])
def test_its_components_are_moments_of_a_target_with_the_wanted_frequencies(other):
    """The frequencies over all texts of the fitted target, each text with its probability under it, are the wanted."""
    words = ["film", "actor", "plot", "the"]
    texts = [" ".join(pair) for pair in np.array(np.meshgrid(words, words, words)).reshape(3, -1).T]
    log_reference = torch.tensor(np.random.default_rng(0).normal(size=len(texts))).log_softmax(0)
    wanted = {"film": 1, "actor": 2, "plot": 5}
    scorer = WordFrequencies(wanted, other=other, per_word=True)
    features = {name: torch.tensor(values) for name, values in scores(scorer, *texts).components.items()}
    target = Distributional(dict.fromkeys(scorer.component_names[1:], 0.0)).fit(features, log_reference)
    p = (log_reference + target.log_weights(features)).softmax(0).numpy()
    expected = {word: p @ [text.split().count(word) for text in texts] for word in words}
    counted = sum(expected.values()) if other else sum(expected[word] for word in wanted)
    for word, number in wanted.items():
        assert expected[word] / counted == pytest.approx((1 - other) * number / 8, abs=1e-9)
    before = log_reference.exp().numpy() @ [text.split().count("plot") for text in texts]
    assert abs(before - expected["plot"]) > 0.1


def test_words_are_those_of_the_tokenizer():
    scorer = WordFrequencies({"Café": 1, "काम": 1, "don't": 2})
    assert list(scorer.frequencies) == ["café", "काम", "don't"]
    assert scores(scorer, "CAFE\u0301, काम; don’t don't").rewards == pytest.approx([0], abs=1e-12)
    chinese = WordFrequencies({"电": 1, "影": 1}, tokenizer="zh")
    assert scores(chinese, "这部电影").rewards == pytest.approx([0], abs=1e-12)


def test_a_file_of_frequencies(tmp_path):
    path = tmp_path / "topic.txt"
    path.write_text("film\t3\n\nactor 1\n", encoding="utf-8")
    assert WordFrequencies(str(path)).frequencies == {"film": 0.75, "actor": 0.25}
    for wrong in ("film 3\nactor\n", "film 3\nactor one\n", "film 3\nfilm 1\n", "film 3\na film 1\n"):
        path.write_text(wrong)
        with pytest.raises(
            ValueError, match="'word_frequencies': line 2 of .*topic.txt' is .*; it must be a new word and"
        ):
            WordFrequencies(str(path))
    with pytest.raises(FileNotFoundError, match="no_such_file"):
        WordFrequencies("no_such_file.txt")


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        ({}, "frequencies is {}; it must give words a positive number each"),
        (["film"], r"frequencies is \['film'\]; it must give words"),
        ({"film": 1}, "frequencies is .*, and other 0.0; there must be two words, or one and others"),
        ({"film": 1, "actor": 0}, "the frequency of 'actor' is 0; it must be a positive number"),
        ({"film": 1, "actor": math.inf}, "the frequency of 'actor' is inf"),
        ({"film": 1, "actor": "2"}, "the frequency of 'actor' is '2'"),
        ({"film": 1, 3: 1}, "frequencies is .*; it must give words a positive number each"),
        (
            {"film": 1, "New York": 1},
            r"'New York' is no word: the tokenizer reads \['new', 'york'\], so no text has it",
        ),
        ({"film": 1, "...": 1}, r"'...' is no word: the tokenizer reads \[\]"),
        ({"film": 1, "Film": 1}, "'Film' is listed twice; the tokenizer reads it as 'film'"),
    ],
    ids=repr,
)
def test_frequencies_that_are_refused(frequencies, message):
    with pytest.raises(ValueError, match=f"scorer 'word_frequencies': {message}"):
        WordFrequencies(frequencies)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"other": 1}, "frequencies is .*, and other 1; there must be"),
        ({"other": -0.1}, r"other is -0.1; it must be in \[0, 1\]"),
        ({"per_word": 1}, "per_word is 1; it must be True or False"),
        ({"tokenizer": "word"}, "tokenizer is 'word'; accepted are .*did you mean 'words'"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"scorer 'word_frequencies': {message}"):
        WordFrequencies(TOPIC, **arguments)


def test_a_tokenizer_that_fails_is_named():
    def failing(text):
        return text.split() if len(text) < 6 else None

    with pytest.raises(ScorerError, match="'word_frequencies' raised ValueError: the tokenizer made None of"):
        scores(WordFrequencies(TOPIC, per_word=True, tokenizer=failing), "film film")


@pytest.mark.parametrize("spec", [{}, {"other": 0.5, "per_word": True}], ids=["plain", "per word"])
def test_contract(spec):
    completions = ["", "film", "the cat", "cafe\u0301 काम \u0301", "我喜欢", "film actor " * 1000]
    scorer = make_scorer({"name": "word_frequencies", "frequencies": TOPIC, **spec})
    check_scorer(scorer, completions=completions, pickles=True)
