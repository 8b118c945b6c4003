# /// script
# dependencies = ["lm-eval==0.4.13"]
# ///
"""Likelihoods by lm-eval beside those computed by hand; run by test_in_environments.py, where lm-eval is installed."""

import math
import re

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM

from agents import RLOO
from tests.helpers.docs import blocks, page, section
from textgym.bridges.lm_eval import held_out_task
from textgym.language_models.loader import load_merged, load_tokenizer

OPENINGS = "The film", "I never", "A quiet story of", "What a waste: {{ text }} and {% raw %}", "Ünïcödé, too"
TEXTS = [
    f"{opening} number {i} is told in {i % 7} parts, and the last of them is good."
    for i in range(8)
    for opening in OPENINGS
]


def by_lm_eval(model, task, **arguments):
    lm = HFLM(pretrained=load_merged(model), tokenizer=load_tokenizer(model), batch_size=8, device="cpu")
    return simple_evaluate(model=lm, tasks=[task], bootstrap_iters=0, **arguments)["results"]["held_out"]


def by_hand(model, texts):
    """The log-likelihood of all texts, each behind a begin-of-text token, and how many tokens they have."""
    tokenizer, network, total, count = load_tokenizer(model), load_merged(model).double(), 0.0, 0
    for text in texts:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
        with torch.no_grad():
            log_probs = network(input_ids=ids).logits[:, :-1].log_softmax(-1)
        total += float(log_probs.gather(-1, ids[:, 1:, None]).sum())
        count += ids.shape[1] - 1
    return total, count


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    agent = RLOO("TokenPolicy", "TextGen-v0", n_envs=16, num_generations=8, learning_rate=3e-3, kl_coef=0.0, seed=0)
    agent.learn(4_000)
    agent.save(folder := tmp_path_factory.mktemp("run") / "checkpoint")
    return str(folder)


def test_likelihoods_of_a_model_and_of_a_checkpoint_are_those_computed_by_hand(checkpoint):
    found = {}
    for model in ("tiny", checkpoint):
        result = by_lm_eval(model, held_out_task(TEXTS))
        total, count = by_hand(model, TEXTS)
        size, words = sum(len(t.encode()) for t in TEXTS), sum(len(re.split(r"\s+", t)) for t in TEXTS)
        assert result["bits_per_byte,none"] == pytest.approx(-total / size / math.log(2), rel=1e-5)
        assert result["byte_perplexity,none"] == pytest.approx(math.exp(-total / size), rel=1e-5)
        assert result["word_perplexity,none"] == pytest.approx(math.exp(-total / words), rel=1e-4)
        assert count > 900
        found[model] = result["bits_per_byte,none"]
    print(found)
    assert found[checkpoint] > found["tiny"] + 0.05  # it learned to please, and forgot


def test_lm_eval_sets_all_random_numbers_unless_told_not_to():
    """What the page warns of: it does so in the process that calls it, where a training may go on."""
    task, drawn = held_out_task(TEXTS[:2]), []
    for seeds in ({}, dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))):
        for start in (1, 2):
            np.random.seed(start)
            torch.manual_seed(start)
            by_lm_eval("tiny", task, **seeds)
            drawn.append((np.random.random(), float(torch.rand(1))))
    assert drawn[0] == drawn[1] and drawn[2] != drawn[3]


@pytest.mark.parametrize("texts", [["good", ""], [[{"role": "user", "content": "Hi"}]], lambda rng: "a", [], "nothing"])
def test_what_is_no_set_of_texts_is_refused(texts):
    with pytest.raises(ValueError):
        held_out_task(texts)


def test_the_section_of_the_page_is_a_program(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(section(page("bridges"), "lm-eval")))
    exec(code.replace("runs/rloo/checkpoint", checkpoint), {})
    assert capsys.readouterr().out.count("bits per byte") == 2
