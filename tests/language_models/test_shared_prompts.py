"""Prompts that are computed once: the same hidden states and gradients as whole rows, cheaper, or not done at all."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import small_gpt2
from tests.helpers.models import DEEPSEEK, small
from textgym.language_models import shared_prompts
from textgym.language_models.adapters import add_adapters, peft_config
from textgym.language_models.forward import whole_rows_hidden
from textgym.language_models.pieces import cheapest_groups
from textgym.language_models.prompt_attention import PromptAttention
from textgym.language_models.shared_prompts import (
    IN_PLACE_FROM,
    SharedPrompts,
    episode_hidden,
    reads_in_place,
    shares_prompts,
)
from textgym.language_models.token_model import TokenModel
from textgym.mdp import TextMDP
from textgym.training.episodes import Episodes
from textgym.training.updates import accumulate_gradients

V, P, T = 7, 6, 5
MDP = TextMDP(vocab_size=V, max_prompt_tokens=P, max_new_tokens=T, eos_token_ids=(V - 1,), bos_token_id=None)
MODELS = {
    "Llama": small("Llama"),
    "GPT2": small_gpt2(vocab_size=8),
    "Qwen2": small("Qwen2", num_key_value_heads=2),
    "DeepseekV3": small("DeepseekV3", **DEEPSEEK),
    "Gemma2": small("Gemma2", num_key_value_heads=2, head_dim=8),
}
for kind in ("PROMPT_TUNING", "PREFIX_TUNING"):
    MODELS[kind] = small("Llama", num_key_value_heads=2)
    add_adapters(MODELS[kind], peft_config({"peft_type": kind, "num_virtual_tokens": 2}))
IN_PLACE = ("Llama", "GPT2", "Qwen2")
GROUPS = st.lists(
    st.tuples(st.integers(1, P), st.lists(st.integers(0, T), min_size=1, max_size=4)), min_size=1, max_size=4
)


def rows_of(groups, seed=0):
    """Rows in groups of one prompt each, given by its length and its completions' lengths, in random order."""
    draw, rows = torch.Generator().manual_seed(seed), []
    for prompt_length, lengths in groups:
        prompt = torch.randint(0, V - 1, (prompt_length,), generator=draw)
        for length in lengths:
            row = torch.full((P + T,), V)
            row[P - prompt_length : P] = prompt
            row[P : P + length] = torch.randint(0, V - 1, (length,), generator=draw)
            rows.append(row)
    return torch.stack(rows)[torch.randperm(len(rows), generator=draw)]


def gradient(model, hidden):
    """Of a fixed random function of the hidden states, with respect to all weights of the trunk."""
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    trained = [p for p in model.base_model.parameters() if p.requires_grad]
    parts = torch.autograd.grad((hidden * weights).sum(), trained, allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


@pytest.mark.parametrize(("name", "in_place"), [*((name, False) for name in MODELS), *((n, True) for n in IN_PLACE)])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(groups=GROUPS)
def test_hidden_states_and_gradients_are_those_of_whole_rows(name, in_place, groups):
    assume(any(max(lengths) > 0 for _, lengths in groups))
    model, rows = MODELS[name], rows_of(groups)
    whole, shared = whole_rows_hidden(model, MDP, rows), SharedPrompts(MDP, rows).hidden(model, in_place)
    torch.testing.assert_close(shared, whole, atol=2e-5, rtol=1e-5)
    ours, theirs = gradient(model, shared), gradient(model, whole)
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("name", MODELS)
def test_common_architectures_share(name):
    assert shares_prompts(MODELS[name], MDP)


@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_read_in_place_where_a_model_attends_through_sdpa(name):
    assert reads_in_place(MODELS[name]) == (name in IN_PLACE)


@pytest.mark.parametrize("length", [IN_PLACE_FROM - 1, IN_PLACE_FROM])
def test_long_prompts_are_read_in_place(length, monkeypatch):
    mdp = TextMDP(vocab_size=V, max_prompt_tokens=length, max_new_tokens=T, eos_token_ids=(V - 1,), bos_token_id=None)
    completions = torch.randint(0, V - 1, (8, T), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([torch.arange(length).remainder(V - 1).expand(8, -1), completions], 1)
    model, calls, attend = small("Llama", max_position_embeddings=64), [], PromptAttention.__call__
    assert reads_in_place(model)
    monkeypatch.setattr(PromptAttention, "__call__", lambda *args: calls.append(1) or attend(*args))
    hidden = episode_hidden(model, mdp, rows)
    torch.testing.assert_close(hidden, whole_rows_hidden(model, mdp, rows), atol=2e-5, rtol=1e-5)
    assert len(calls) == (model.config.num_hidden_layers if length == IN_PLACE_FROM else 0)
    assert model.config._attn_implementation == "sdpa"


def episodes_of(rows, prompt_ids=None):
    zeros = torch.zeros(len(rows), T)
    ids = rows[:, :P].unique(dim=0, return_inverse=True)[1] if prompt_ids is None else prompt_ids
    names = ("rewards", "sampled_log_probs", "values")
    return Episodes.sampled(V, rows=rows, prompt_ids=ids, components=zeros[:, :1], **dict.fromkeys(names, zeros))


@pytest.mark.parametrize("lora", [None, {"r": 2}])
@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_a_step_has_the_same_loss_and_gradient(monkeypatch, lora, micro_batch_size):
    mdp = TextMDP(V, P, T, (V - 1,), None, min_new_tokens=2, banned_tokens=(1,))
    rows = rows_of([(6, [5, 1, 3]), (2, [2, 2, 5]), (6, [4, 4, 4])])
    rows[rows == 1] = 2  # 1 is banned
    episodes, results = episodes_of(rows), []
    monkeypatch.setattr(shared_prompts, "IN_PLACE_FROM", 0)
    for shares, in_place in ((False, False), (True, False), (True, True)):
        token_model = TokenModel(mdp, small("Llama"), lora=lora, temperature=0.7).train()
        assert token_model.shares_prompts() and reads_in_place(token_model.model)
        for name, parameter in token_model.named_parameters():
            if "lora_B" in name:  # zeros, with which the gradient of A would be 0
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
        monkeypatch.setattr(shared_prompts, "_RIGHT", {token_model.model: {False: shares, True: in_place}})
        statistics, log_probs = accumulate_gradients(
            token_model,
            episodes,
            lambda batch, terms: (batch.rows.sum(-1, keepdim=True).sin() * terms.log_probs, {}),
            ent_coef=0.1,
            micro_batch_size=micro_batch_size,
        )
        parts = [p.grad.flatten() for p in token_model.parameters() if p.grad is not None]
        results.append((log_probs, torch.cat(parts), statistics))
    whole, *shared = results
    for log_probs, gradients, statistics in shared:
        torch.testing.assert_close(log_probs, whole[0], atol=1e-5, rtol=0)
        assert statistics == pytest.approx(whole[2], abs=1e-5)
        assert (gradients - whole[1]).norm() <= 1e-5 * whole[1].norm()


def test_fewer_tokens_go_through_the_model():
    rows = rows_of([(6, [5, 5, 5, 5]), (6, [5, 5, 5, 5])])
    shared = SharedPrompts(MDP, rows)
    assert shared.cost_of_rows == 8 * (6 + 5 - 1) + 8
    assert shared.cost == 2 * 6 + 8 * 4 + 2 * 8
    fed = []
    model = small("Llama")
    handle = model.base_model.layers[0].register_forward_hook(lambda _, args, output: fed.append(args[0].shape[:2]))
    episode_hidden(model, MDP, rows)  # the first call compares the two ways
    fed.clear()
    episode_hidden(model, MDP, rows)
    handle.remove()
    assert sum(n * length for n, length in fed) == 2 * 6 + 8 * 4


def test_distinct_prompts_are_not_shared():
    shared = SharedPrompts(MDP, rows_of([(6, [5]), (5, [5]), (4, [5])]))
    assert shared.cost > shared.cost_of_rows


def test_a_model_with_a_cache_that_carries_no_gradient_is_left_alone_and_says_so_once(monkeypatch):
    model = small("Llama")
    trunk, forward = model.base_model, model.base_model.forward

    def detaching(*args, past_key_values=None, **kwargs):
        for layer in past_key_values.layers if past_key_values is not None else ():
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
        return forward(*args, past_key_values=past_key_values, **kwargs)

    monkeypatch.setattr(trunk, "forward", detaching)
    rows = rows_of([(6, [5, 5, 5, 5])])
    with pytest.warns(UserWarning, match="LlamaForCausalLM.*cannot be trained through"):
        hidden = episode_hidden(model, MDP, rows)
    torch.testing.assert_close(hidden, whole_rows_hidden(model, MDP, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        episode_hidden(model, MDP, rows)


def test_gradient_checkpointing_computes_whole_rows():
    token_model = TokenModel(MDP, small("Llama"), gradient_checkpointing=True)
    model, rows = token_model.model, rows_of([(6, [5, 3, 4, 1]), (2, [4, 2])])
    assert shares_prompts(model, MDP)
    shared = gradient(model, episode_hidden(model, MDP, rows))
    token_model.train()
    assert not shares_prompts(model, MDP)
    whole = gradient(model, episode_hidden(model, MDP, rows))
    assert (whole - shared).norm() < 1e-5 * shared.norm()


def partitions(n):
    """All ways to cut n rows into slices."""
    for bits in range(2 ** (n - 1)):
        cuts = [i for i in range(1, n) if bits >> (i - 1) & 1]
        yield list(zip((0, *cuts), (*cuts, n), strict=True))


@pytest.mark.parametrize("cost", [0, 3, 100])
@pytest.mark.parametrize("size", [None, 2, 3])
def test_groups_are_cut_where_it_costs_least(cost, size, rng):
    for n in range(1, 8):
        prompts = np.sort(rng.integers(1, 9, n))
        groups = np.cumsum(np.diff(prompts, prepend=0) + rng.integers(0, 2, n) > 0)
        fed = rng.integers(0, 6, n)

        def price(slices, groups=groups, prompts=prompts, fed=fed):
            return sum(len(set(groups[a:b])) * prompts[b - 1] + fed[a:b].sum() + 2 * cost for a, b in slices)

        least, slices = cheapest_groups(groups, prompts, fed, size, cost)
        allowed = [s for s in partitions(n) if all(b - a <= (size or n) for a, b in s)]
        assert slices in allowed and least == price(slices) == min(map(price, allowed))


def test_micro_batches_keep_the_completions_of_a_prompt_together():
    rows = rows_of([(6, [5, 1, 3, 2]), (2, [2, 5, 1, 1])])
    episodes = episodes_of(rows)
    together = [{int(i) for i in episodes.prompt_ids[index]} for index in episodes.micro_batches(4)]
    assert sorted(map(len, together)) == [1, 1]
    apart = episodes.micro_batches(4, share_prompts=False)
    assert sorted(torch.cat(apart).tolist()) == list(range(8))
    assert [int(episodes.row_lengths[index].max()) for index in apart] == sorted(
        int(episodes.row_lengths[index].max()) for index in apart
    )


def test_a_frozen_model_shares_too():
    assert shares_prompts(small("Llama").requires_grad_(False), MDP)
