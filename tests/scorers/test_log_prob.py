"""LogProb against a plain forward pass over the context, whatever the decoder does with its cache."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import model_inputs
from textgym.scorers import LogProb, ScorerError, WeightedSum
from textgym.testing import check_scorer, make_generations

BATCH = make_generations(["The", "a", "", "Why so"], [" film", "", "abcdefg", "?"])


def make_model(vocab_size=300):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=256, eos_token_id=256
    )
    config.initializer_range = 0.5  # far from uniform
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


def at_step(batch, step, asked=None):
    """What an env passes after token `step`: rows that are still running, or `asked`."""
    lengths = batch.lengths
    asked = np.flatnonzero(lengths >= step) if asked is None else asked
    observations = batch.observations[asked]
    observations[:, batch.mdp.max_prompt_tokens + step :] = batch.mdp.pad_id
    reached, ended = np.full(len(observations), step), lengths[asked] == step
    return replace(batch.select(asked), observations=observations, lengths=reached, ended=ended)


@torch.no_grad()
def expected(model, batch):
    """log P(newest token | context) by a full forward pass of each row's context."""
    values = []
    for row, length in zip(batch.observations, batch.lengths, strict=True):
        context, newest = row.copy(), batch.mdp.max_prompt_tokens + length - 1
        context[newest] = batch.mdp.pad_id
        logits = model(**model_inputs(context, batch.mdp.pad_id)).logits[0, -1, : batch.mdp.vocab_size]
        values.append(logits.log_softmax(-1)[row[newest]].item())
    return values


def test_each_token_as_rows_end(model):
    scorer = LogProb(model)
    for step in range(1, BATCH.mdp.max_new_tokens + 1):
        now = at_step(BATCH, step)
        np.testing.assert_allclose(scorer.evaluate(now).rewards, expected(model, now), atol=1e-4)


def test_the_cache_is_used_as_rows_end(model, monkeypatch):
    fed, trunk = [], model.base_model
    forward = trunk.forward

    def note(*args, **kwargs):
        if kwargs.get("past_key_values") is not None:  # not the probe that checks the model
            fed.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(trunk, "forward", note)
    scorer = LogProb(model)
    for step in range(1, BATCH.mdp.max_new_tokens + 1):
        scorer.evaluate(at_step(BATCH, step))
    # all prompts, then one token of each row that is still asked about: lengths 6, 1, 8 and 2
    assert fed == [(4, BATCH.mdp.max_prompt_tokens), (3, 1)] + [(2, 1)] * 4 + [(1, 1)] * 2


def test_rows_at_different_steps(model):
    """As under autoreset, where ended rows are replaced one by one."""
    scorer = LogProb(model)
    mixed = replace(BATCH, ended=np.ones(4, bool))  # lengths 6, 1, 8, 2
    np.testing.assert_allclose(scorer.evaluate(mixed).rewards, expected(model, mixed), atol=1e-4)
    later = at_step(BATCH, 2, asked=np.array([2, 0]))
    np.testing.assert_allclose(scorer.evaluate(later).rewards, expected(model, later), atol=1e-4)


def test_another_number_of_rows(model):
    scorer = LogProb(model)
    for asked in (np.arange(2), np.arange(4), np.array([1])):
        now = at_step(BATCH, 1, asked)
        np.testing.assert_allclose(scorer.evaluate(now).rewards, expected(model, now), atol=1e-4)
    now = at_step(BATCH, 2, np.array([0, 2, 3]))  # more rows than before, and not from their start
    np.testing.assert_allclose(scorer.evaluate(now).rewards, expected(model, now), atol=1e-4)


def test_another_mdp(model):
    scorer = LogProb(model)
    for batch in (BATCH, make_generations(["long prompt"], ["x"])):
        now = at_step(batch, 1)
        np.testing.assert_allclose(scorer.evaluate(now).rewards, expected(model, now), atol=1e-4)


def test_the_return_is_the_log_probability_of_the_text(model):
    rows = [*b"a", *b"abcdefg", 256]
    batch = make_generations(["a"], ["abcdefg"])
    scorer = LogProb(model)
    total = sum(scorer.evaluate(at_step(batch, step)).rewards[0] for step in range(1, 9))
    with torch.no_grad():
        log_probs = model(torch.tensor([rows])).logits[0, :, :257].log_softmax(-1)
    assert total == pytest.approx(sum(log_probs[t, rows[t + 1]].item() for t in range(8)), abs=1e-4)


def test_a_model_with_too_few_tokens():
    with pytest.raises(
        ScorerError, match="scorer 'log_prob' raised ValueError: .* 200 tokens, the env's tokenizer has 257"
    ):
        LogProb(make_model(vocab_size=200)).evaluate(at_step(BATCH, 1))


def test_a_directory(model, tmp_path):
    model.save_pretrained(tmp_path)
    now = at_step(BATCH, 1)
    np.testing.assert_allclose(LogProb(str(tmp_path)).evaluate(now).rewards, expected(model, now), atol=1e-4)


def test_pickling_drops_the_cache(model):
    scorer = LogProb(model)
    scorer.evaluate(at_step(BATCH, 1))
    copy = pickle.loads(pickle.dumps(scorer))
    for step in (2, 3):
        now = at_step(BATCH, step)
        np.testing.assert_allclose(copy.evaluate(now).rewards, expected(model, now), atol=1e-4)


def test_contract(model):
    check_scorer(LogProb(model), prompts=["The", ""], completions=["", "abc"], tolerance=1e-3, pickles=True, longest=40)
    check_scorer(
        WeightedSum([LogProb(model), "sentiment"]),
        prompts=["The"],
        completions=["", "good"],
        tolerance=1e-3,
        longest=40,
    )


def test_a_peft_model_scores_with_its_adapters(model):
    """The values are those of the plain model that its adapters make when they are merged."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(make_model(), LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True))
    with torch.no_grad():
        for p in adapted.parameters():
            p.add_(0.1 * torch.randn_like(p) * p.requires_grad)
    first = at_step(BATCH, 1)
    values = LogProb(adapted).score(first)
    assert (values - LogProb(model).score(first)).abs().max() > 0.1
    torch.testing.assert_close(values, LogProb(adapted.merge_and_unload()).score(first), atol=1e-4, rtol=0)
