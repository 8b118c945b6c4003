"""Attention that reads a prompt once for its rows; that whole decoders are right with it is in `test_decoder.py`."""

import numpy as np
import pytest
import torch

from tests.conftest import small_llama
from textgym.language_models import prompt_groups
from textgym.language_models.decoder import Decoder
from textgym.language_models.forward import logits_of, state_hidden
from textgym.language_models.prompt_groups import PromptGroups
from textgym.mdp import TextMDP, first_observation

PROMPT = 80
MDP = TextMDP(vocab_size=8, max_prompt_tokens=PROMPT, max_new_tokens=4, eos_token_ids=(7,), bos_token_id=7)


def test_groups_pay_where_long_prompts_have_many_rows():
    short, long = np.arange(8)[None].repeat(16, 0), np.arange(128)[None].repeat(16, 0)
    distinct = long + np.arange(16)[:, None]
    assert PromptGroups(long, -1).pays
    assert not PromptGroups(short, -1).pays
    assert not PromptGroups(distinct, -1).pays


@pytest.mark.parametrize("sizes", [[8, 8], [11, 5, 1]])
def test_attention_is_that_of_every_row_on_its_own(sizes, rng, monkeypatch):
    monkeypatch.setattr(prompt_groups, "SPLIT_COST", -100)  # worth it also for prompts as short as these
    torch.manual_seed(0)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    lengths = np.array([5, 3, 4])[group]
    prompts = np.where(np.arange(5) < lengths[:, None], group[:, None], -1)
    n, heads, key_heads, size, width = len(group), 4, 2, 8, 9
    query, (key, value) = torch.randn(n, heads, 1, size), torch.randn(2, n, key_heads, width, size)
    for states in (key, value):  # rows of a group have the same prompt
        for i, length in enumerate(lengths):
            states[i, :, :length] = states[int((group == group[i]).argmax()), :, :length]
    columns = torch.from_numpy(lengths + rng.integers(0, 4, n))
    columns[0] = width - 1
    groups = PromptGroups(prompts, -1)
    groups.see(columns)
    seen = (torch.arange(width) <= columns[:, None])[:, None, None]
    whole = torch.nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=0.5, enable_gqa=True)
    result = groups.attend(torch.nn.Identity(), query, key, value, 0.5)
    torch.testing.assert_close(result, whole.transpose(1, 2))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_whose_attention_is_sdpa_reads_prompts_once_and_keeps_its_configuration(attention, monkeypatch, rng):
    calls, attend = [], PromptGroups.attend
    monkeypatch.setattr(PromptGroups, "attend", lambda *args: calls.append(1) or attend(*args))
    model = small_llama(vocab_size=8, max_position_embeddings=128, attn_implementation=attention)
    decoder = Decoder(model, MDP)
    prompts = [first_observation(MDP, rng.integers(0, 7, PROMPT - i).tolist()) for i in range(2)]
    rows = np.stack([prompts[i % 2] for i in range(16)])
    for t in range(3):
        with torch.no_grad():
            whole = logits_of(model, state_hidden(model, MDP, torch.from_numpy(rows)), MDP.vocab_size)
        torch.testing.assert_close(decoder.logits(torch.from_numpy(rows)), whole, atol=1e-4, rtol=0)
        rows[:, PROMPT + t] = rng.integers(0, 7, 16)
    assert len(calls) == (2 * model.config.num_hidden_layers if attention == "sdpa" else 0)
    assert model.config._attn_implementation == attention
