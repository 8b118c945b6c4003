"""RewardModel on tiny, randomly initialised encoder- and decoder-style models, against single-row forward passes."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from transformers import (
    pipeline,
)

from tests.helpers.reward_models import BATCH, TEMPLATE, decoder, encoder, logits, make_tokenizer
from textgym.scorers import RewardModel, ScorerError, make_scorer
from textgym.testing import check_scorer, make_generations


@pytest.mark.parametrize("make", [encoder, decoder])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_one_output_gives_its_logit_whatever_the_batch(make, batch_size):
    model, tokenizer = make()
    expected = [logits(model, tokenizer, text)[0].item() for text in BATCH.texts]
    assert np.ptp(expected) > 0.01
    scorer = RewardModel(model, tokenizer=tokenizer, batch_size=batch_size)
    np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, expected, atol=1e-5)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_contract(make):
    model, tokenizer = make()
    check_scorer(RewardModel(model, tokenizer=tokenizer, batch_size=5), pickles=True, longest=30)


def test_a_label_gives_its_probability():
    model, tokenizer = encoder(num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"})
    expected = torch.stack([logits(model, tokenizer, text).softmax(-1) for text in BATCH.texts])
    for label, column in [("good", 2), ("bad", 0), (1, 1)]:
        scorer = RewardModel(model, tokenizer=tokenizer, label=label)
        np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, expected[:, column], atol=1e-5)


def test_regression_with_several_outputs_gives_the_output_itself():
    model, tokenizer = encoder(num_labels=3, problem_type="regression")
    expected = torch.stack([logits(model, tokenizer, text) for text in BATCH.texts])
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    for label in range(3):
        rewards = RewardModel(model, tokenizer=tokenizer, label=label).evaluate(BATCH).rewards
        np.testing.assert_allclose(rewards, expected[:, label], atol=1e-5)
        given = [{row["label"]: row["score"] for row in rows}[f"LABEL_{label}"] for rows in pipe(BATCH.texts)]
        np.testing.assert_allclose(rewards, given, atol=1e-5)


def test_multi_label_models_give_sigmoids():
    model, tokenizer = encoder(num_labels=2, problem_type="multi_label_classification")
    expected = [logits(model, tokenizer, text).sigmoid()[1].item() for text in BATCH.texts]
    np.testing.assert_allclose(
        RewardModel(model, tokenizer=tokenizer, label=1).evaluate(BATCH).rewards, expected, atol=1e-5
    )


@pytest.mark.parametrize("make", [encoder, decoder])
def test_a_directory_by_json(make, tmp_path):
    model, tokenizer = make()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = json.loads(json.dumps({"name": "reward_model", "model": str(tmp_path), "device": "cpu"}))
    expected = [logits(model, tokenizer, text)[0].item() for text in BATCH.texts]
    np.testing.assert_allclose(make_scorer(spec).evaluate(BATCH).rewards, expected, atol=1e-5)


def test_dtype(tmp_path):
    model, tokenizer = encoder()
    model.save_pretrained(tmp_path)
    scorer = RewardModel(str(tmp_path), tokenizer=tokenizer, dtype="bfloat16")
    assert scorer.classifier.model.dtype == torch.bfloat16
    full = RewardModel(model, tokenizer=tokenizer).evaluate(BATCH).rewards
    np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, full, atol=0.1)
    for dtype in ("fp16", "float64", torch.int8):
        with pytest.raises(ValueError, match="scorer 'reward_model': unknown dtype .*; accepted: float32, "):
            RewardModel(model, tokenizer=tokenizer, dtype=dtype)


def test_chats_go_through_the_reward_models_template():
    model, tokenizer = encoder()
    tokenizer.chat_template = TEMPLATE
    env_tokenizer = make_tokenizer(eos_token="<eos>")
    env_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}!"
    chats = [[{"role": "user", "content": "hi"}], [{"role": "user", "content": "what is it"}]]
    batch = make_generations(chats, ["yes", "a film"], tokenizer=env_tokenizer)
    assert batch.prompts == ["hi!", "what is it!"]
    texts = ["u|hi|a|yes|", "u|what is it|a|a film|"]
    expected = [logits(model, tokenizer, text, add_special_tokens=False)[0].item() for text in texts]
    np.testing.assert_allclose(RewardModel(model, tokenizer=tokenizer).evaluate(batch).rewards, expected, atol=1e-5)
    tokenizer.chat_template = None
    with pytest.raises(
        ScorerError, match="'reward_model': the prompts are chats, but its tokenizer has no chat template"
    ):
        RewardModel(model, tokenizer=tokenizer).evaluate(batch)


@pytest.mark.parametrize(
    ("num_labels", "arguments", "message"),
    [
        (2, {}, r"the model has 2 labels; choose one with label=..., of \{'LABEL_0': 0, 'LABEL_1': 1\}"),
        (2, {"label": "LABEL_2"}, "no label 'LABEL_2'; did you mean 'LABEL_1'"),
        (2, {"label": 2}, "no label 2"),
        (2, {"label": -1}, "no label -1"),
        (2, {"label": True}, "no label True"),
        (2, {"label": 1.0}, "no label 1.0"),
        (1, {"label": 0}, "a single output, so there is no label 0"),
        (1, {"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        (1, {"batch_size": "8"}, "batch_size is '8'; it must be an integer"),
        (1, {"batch_size": 2.5}, "batch_size is 2.5; it must be an integer"),
    ],
)
def test_arguments_are_checked(num_labels, arguments, message):
    model, tokenizer = encoder(num_labels)
    with pytest.raises(ValueError, match=f"scorer 'reward_model': .*{message}"):
        RewardModel(model, tokenizer=tokenizer, **arguments)


def test_tokenizers_are_checked():
    model, tokenizer = decoder()
    with pytest.raises(ValueError, match="a loaded model needs its tokenizer too"):
        RewardModel(model)
    with pytest.raises(ValueError, match="neither a padding nor an end token"):
        RewardModel(model, tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="scorer 'reward_model': tokenizer is 3; it must be a directory, a hub id or"):
        RewardModel(model, tokenizer=3)
    with pytest.raises(ValueError, match="scorer 'reward_model': unknown model 'no/such'"):
        RewardModel("no/such")
    tokenizer.add_tokens(["extra"])
    with pytest.raises(ValueError, match="the tokenizer has 37 tokens, the model embeds 36"):
        RewardModel(model, tokenizer=tokenizer)


def test_pickles():
    model, tokenizer = encoder()
    scorer = RewardModel(model, tokenizer=tokenizer)
    copy = pickle.loads(pickle.dumps(scorer))
    np.testing.assert_allclose(copy.evaluate(BATCH).rewards, scorer.evaluate(BATCH).rewards)


@pytest.mark.parametrize(
    "spec", [{"name": "reward_model", "model": "org/rm"}, "log_prob"], ids=["reward_model", "log_prob"]
)
def test_without_transformers(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'transformers is missing: pip install "textgym\[agents\]"'):
        make_scorer(spec)
