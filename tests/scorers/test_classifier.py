"""classifier against transformers' text-classification pipeline."""

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from tests.helpers.reward_models import BATCH, decoder, encoder, logits
from textgym.scorers import Classifier, RewardModel, ScorerError, make_scorer
from textgym.testing import check_scorer, make_generations

NAMES = {0: "bad", 1: "fair", 2: "good"}
PROBLEMS = ["single_label_classification", "multi_label_classification", "regression", None]


def reported(pipe, label, texts=BATCH.completions):
    """What the pipeline says of a label, one text at a time."""
    return [{row["label"]: row["score"] for row in pipe([text], top_k=None)[0]}[label] for text in texts]


@pytest.mark.parametrize(("num_labels", "problem_type"), [(3, p) for p in PROBLEMS] + [(1, p) for p in PROBLEMS[1:]])
def test_the_default_is_what_the_pipeline_reports(num_labels, problem_type):
    names = {i: NAMES[i] for i in range(num_labels)}
    model, tokenizer = encoder(num_labels, problem_type=problem_type, id2label=names)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    for index, name in names.items():
        expected = reported(pipe, name)
        assert np.ptp(expected) > 1e-3
        for label in (name, index) if num_labels > 1 else (None,):
            scorer = Classifier(model, tokenizer=tokenizer, label=label, batch_size=2)
            np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, expected, atol=1e-5)


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_raw_is_the_output_itself(problem_type):
    model, tokenizer = encoder(3, problem_type=problem_type)
    expected = [logits(model, tokenizer, text)[1].item() for text in BATCH.completions]
    values = Classifier(model, tokenizer=tokenizer, label=1, value="raw").evaluate(BATCH).rewards
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_probability_of_a_single_output():
    model, tokenizer = decoder()
    raw = [logits(model, tokenizer, text)[0].item() for text in ("a", "b")]
    values = Classifier(model, tokenizer=tokenizer, value="probability").evaluate(
        make_generations(["", ""], ["a", "b"])
    )
    np.testing.assert_allclose(values.rewards, 1 / (1 + np.exp(-np.array(raw))), atol=1e-5)


def test_prompt_and_completion():
    model, tokenizer = encoder(3)
    expected = [logits(model, tokenizer, text).softmax(-1)[2].item() for text in BATCH.texts]
    values = Classifier(model, tokenizer=tokenizer, label=2, of="text").evaluate(BATCH).rewards
    np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(values, RewardModel(model, tokenizer=tokenizer, label=2).evaluate(BATCH).rewards)


@pytest.mark.parametrize("function", [None, "none", "sigmoid", "softmax"])
def test_a_pipeline_keeps_what_it_applies(function):
    model, tokenizer = encoder(3)
    told = {} if function is None else {"function_to_apply": function}
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, **told)
    np.testing.assert_allclose(
        Classifier(pipe, label="LABEL_2").evaluate(BATCH).rewards, reported(pipe, "LABEL_2"), atol=1e-5
    )
    raw = Classifier(pipe, label="LABEL_2", value="raw").evaluate(BATCH).rewards
    np.testing.assert_allclose(raw, [logits(model, tokenizer, text)[2].item() for text in BATCH.completions], atol=1e-5)


def test_a_directory_by_json(tmp_path):
    model, tokenizer = encoder(3, id2label=NAMES)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = json.loads(json.dumps({"name": "classifier", "model": str(tmp_path), "label": "good", "device": "cpu"}))
    expected = [logits(model, tokenizer, text).softmax(-1)[2].item() for text in BATCH.completions]
    np.testing.assert_allclose(make_scorer(spec).evaluate(BATCH).rewards, expected, atol=1e-5)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_contract(make):
    model, tokenizer = make(2)
    for value in ("probability", "raw"):
        check_scorer(
            Classifier(model, tokenizer=tokenizer, label=0, value=value, batch_size=3), pickles=True, longest=60
        )


def test_a_text_that_is_too_long_is_refused():
    model, tokenizer = decoder()
    batch = make_generations(["", ""], ["a" * 64, "a" * 65])
    message = "scorer 'classifier': row 1 has 65 tokens, more than the 64 that the model reads: 'aaa"
    with pytest.raises(ScorerError, match=message):
        Classifier(model, tokenizer=tokenizer).evaluate(batch)


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({}, {}, "the model has 3 labels; choose one with label="),
        ({}, {"label": "LABEL_3"}, "no label 'LABEL_3'; did you mean"),
        ({}, {"label": 0, "value": "logit"}, "value is 'logit'; accepted are"),
        ({}, {"label": 0, "of": "prompt"}, "of is 'prompt'; accepted are"),
        ({}, {"label": 0, "batch_size": 0}, "batch_size is 0; it must be"),
        ({}, {"label": 0, "tokenizer": None}, "a loaded model needs its tokenizer too"),
        ({}, {"label": 0, "model": torch.nn.Linear(1, 1)}, "the Linear is no model of transformers"),
        (
            {"problem_type": "regression"},
            {"label": 0, "value": "probability"},
            "is a regression and has no probabilities",
        ),
    ],
)
def test_arguments_are_checked(config, arguments, message):
    model, tokenizer = encoder(3, **config)
    with pytest.raises(ValueError, match=f"scorer 'classifier': .*{message}"):
        make_scorer({"name": "classifier", "model": model, "tokenizer": tokenizer, **arguments})


def test_a_causal_language_model_is_refused():
    with pytest.raises(ValueError, match=r"scorer 'classifier': 'tiny' is no sequence classifier: it holds no"):
        Classifier("tiny")
