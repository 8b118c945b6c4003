"""cross_encoder against plain calls of sentence-transformers and of transformers, on tiny random models."""

import sys

import numpy as np
import pytest
import torch
from tokenizers import processors

from tests.helpers.reward_models import encoder
from textgym.scorers import CrossEncoder, ScorerError, make_scorer
from textgym.testing import check_scorer, make_generations

sentence_transformers = pytest.importorskip("sentence_transformers")

PROMPTS = [{"prompt": "the film", "reference": "good"}, {"prompt": "a", "reference": ["bad", "so so", "fine"]}]
COMPLETIONS = ["was good", "it was fine"]
BATCH = make_generations(PROMPTS, COMPLETIONS)


def saved(path, num_labels=1, **config):
    model, tokenizer = encoder(num_labels, **config)
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", pair, [("[CLS]", 1), ("[SEP]", 2)]
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path), model, tokenizer


@torch.no_grad()
def output(model, tokenizer, pair):
    """The logits of one pair by transformers alone."""
    return model(**tokenizer(*pair, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_the_raw_output_of_the_best_reference(tmp_path, batch_size):
    folder, model, tokenizer = saved(tmp_path)
    raw = [[output(model, tokenizer, (r, COMPLETIONS[1])).item() for r in PROMPTS[1]["reference"]]]
    expected = [output(model, tokenizer, ("good", COMPLETIONS[0])).item(), max(raw[0])]
    assert np.ptp(raw) > 0.01
    for made in (folder, sentence_transformers.CrossEncoder(folder, device="cpu")):
        values = CrossEncoder(made, batch_size=batch_size).evaluate(BATCH).rewards
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_probability_is_what_the_library_gives_by_default(tmp_path):
    folder, _, _ = saved(tmp_path)
    pairs = [(row["prompt"], text) for row, text in zip(PROMPTS, COMPLETIONS, strict=True)]
    expected = sentence_transformers.CrossEncoder(folder, device="cpu").predict(pairs)
    values = CrossEncoder(folder, to="prompt", value="probability").evaluate(BATCH).rewards
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_label_of_several(tmp_path):
    folder, model, tokenizer = saved(tmp_path, 3, id2label={0: "contradiction", 1: "neutral", 2: "entailment"})
    pairs = [(row["prompt"], text) for row, text in zip(PROMPTS, COMPLETIONS, strict=True)]
    raw = torch.stack([output(model, tokenizer, pair) for pair in pairs])
    for value, expected in (("raw", raw), ("probability", raw.softmax(-1))):
        scorer = CrossEncoder(folder, to="prompt", label="entailment", value=value)
        np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, expected[:, 2], atol=1e-5)
    with pytest.raises(ValueError, match="scorer 'cross_encoder': the model has 3 labels; choose one"):
        CrossEncoder(folder)
    with pytest.raises(ValueError, match="no label 'neutrality'; did you mean 'neutral'"):
        CrossEncoder(folder, label="neutrality")


def test_contract(tmp_path):
    folder, _, _ = saved(tmp_path)
    check_scorer(
        {"name": "cross_encoder", "model": folder, "batch_size": 3}, prompts=PROMPTS, pickles=True, longest=400
    )
    check_scorer({"name": "cross_encoder", "model": folder, "to": "prompt"}, longest=400)


def test_a_pair_that_is_too_long_is_refused(tmp_path):
    folder, _, _ = saved(tmp_path, max_position_embeddings=16)
    rows = [{"prompt": "", "reference": "good"}, {"prompt": "", "reference": "a" * 7}]
    CrossEncoder(folder).evaluate(make_generations(rows, ["b" * 6, "b" * 6]))
    message = (
        r"'cross_encoder': row 1 has a text of 17 tokens, more than the 16 that the model reads: \('aaaaaaa', 'bbb"
    )
    with pytest.raises(ScorerError, match=message):
        CrossEncoder(folder).evaluate(make_generations(rows, ["b" * 6, "b" * 7]))


def test_a_model_without_a_trained_head_is_refused(tmp_path):
    folder, model, _ = saved(tmp_path)
    model.bert.save_pretrained(folder)
    sentence_transformers.CrossEncoder(folder, device="cpu")  # the library draws one at random
    with pytest.raises(ValueError, match=r"scorer 'cross_encoder': .* is no sequence classifier: it holds no \["):
        CrossEncoder(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": None}, "model is None; it must be a directory, a hub id or a CrossEncoder"),
        ({"label": 0}, "a single output, so there is no label 0"),
        ({"value": "sigmoid"}, "value is 'sigmoid'; accepted are"),
        ({"to": "completion"}, "to is 'completion'; accepted are"),
        ({"batch_size": 0}, "batch_size is 0; it must be"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
    ],
)
def test_arguments_are_checked(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=f"scorer 'cross_encoder': .*{message}"):
        make_scorer({"name": "cross_encoder", "model": saved(tmp_path)[0], **arguments})


def test_without_sentence_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'sentence_transformers is missing: pip install "textgym\[similarity\]"'):
        CrossEncoder("org/model")
