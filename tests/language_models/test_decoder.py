"""The decoder against an unpadded, uncached forward of every row, and what it feeds to the model for that."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import small_gpt2, small_llama
from tests.helpers.models import DEEPSEEK, small
from textgym.language_models import graphs, prompt_groups
from textgym.language_models.adapters import add_adapters, peft_config
from textgym.language_models.decoder import Decoder
from textgym.language_models.graphs import GraphedSteps
from textgym.language_models.token_model import TokenModel
from textgym.mdp import TextMDP, first_observation

MDP = TextMDP(vocab_size=3, max_prompt_tokens=3, max_new_tokens=5, eos_token_ids=(2,), bos_token_id=2)
P, T, V = MDP.max_prompt_tokens, MDP.max_new_tokens, MDP.vocab_size


VIRTUAL = [f"{model} {kind} tuning" for model in ("llama", "gpt2") for kind in ("prompt", "prefix")]


@cache
def model_named(name):
    """Models whose embeddings are larger than V."""
    makers = {"llama": small_llama, "gpt2": small_gpt2}
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    others = {
        "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
        "qwen3": ("Qwen3", grouped),
        "gpt_neox": ("GPTNeoX", {}),
        "mistral": ("Mistral", {**grouped, "sliding_window": P + T}),
        "gemma2": ("Gemma2", grouped),  # its attention is "eager" by default
        "deepseek": ("DeepseekV3", DEEPSEEK),
        "llama eager": ("Llama", {"num_key_value_heads": 2, "attn_implementation": "eager"}),
    }
    if name.endswith(" tuning"):
        kind, model = name.removesuffix(" tuning").split(), makers.get(name.split()[0], small_llama)(vocab_size=8)
        torch.manual_seed(1)
        add_adapters(model, peft_config({"peft_type": f"{kind[1].upper()}_TUNING", "num_virtual_tokens": 3}))
        return model
    return makers[name](vocab_size=8) if name in makers else small(others[name][0], **others[name][1])


@cache
def truth(name):
    """Log-probabilities of the next token after every sequence of tokens, each run alone: no padding, no cache."""
    table = {}
    for length in range(1, P + T):
        ids = torch.cartesian_prod(*[torch.arange(V)] * length).reshape(-1, length)
        with torch.no_grad():
            logits = model_named(name)(input_ids=ids, use_cache=False).logits[:, -1, :V]
        table.update(zip(map(tuple, ids.tolist()), logits.log_softmax(-1), strict=True))
    return table


def row(prompt, completion=()):
    observation = first_observation(MDP, prompt)
    observation[P : P + len(completion)] = completion
    return observation


def check(decoder, name, rows):
    """Compare with the truth; rows that ended have logits 0 and are not live."""
    observations, ended = torch.from_numpy(rows), torch.from_numpy(MDP.ended(rows))
    logits = decoder.logits(observations)
    assert torch.equal(decoder.hidden(observations)[1], ~ended)
    assert logits.dtype == torch.float32 and (logits[ended] == 0).all()
    if not ended.all():
        expected = torch.stack([truth(name)[tuple(r[r != MDP.pad_id])] for r in rows[~ended.numpy()]])
        torch.testing.assert_close(logits[~ended].log_softmax(-1), expected, atol=1e-4, rtol=0)


def play(decoder, name, draw, steps):
    """Rows that grow, end, wait, begin anew (few prompts, so that rows share them) or jump into an episode.

    Now and then another batch comes in between, and rows are added or taken away. `draw(n)` chooses from 0..n-1.
    """

    def tokens(most, least=1):
        return [draw(V) for _ in range(least + draw(most - least + 1))]

    def next_row(old):
        kind, length = draw(12), int(MDP.completion_lengths(old))
        if kind < 8 and not MDP.ended(old):
            new = old.copy()
            new[P + length] = draw(V - 1) if draw(4) else V - 1
            return new
        if kind == 8:
            return old
        if kind == 9:
            return row(tokens(P), [t % 2 for t in tokens(T - 1, 0)])
        return row(prompts[draw(len(prompts))])

    prompts = [tokens(P) for _ in range(3)]
    batches = [np.stack([row(prompts[draw(3)]) for _ in range(1 + draw(5))]) for _ in range(2)]
    for _ in range(steps):
        which = draw(10) == 0
        check(decoder, name, batches[which])
        batches[which] = np.stack([next_row(old) for old in batches[which]])
        if draw(25) == 0:
            keep = batches[which][draw(len(batches[which])) :]
            batches[which] = np.concatenate([keep, [row(tokens(P))]])


def decoder_of(name, way="plain"):
    decoder = Decoder(model_named(name), MDP)
    if way == "graphed":  # on a CPU a step is its own replay: the same buffers, idle rows and masks
        decoder._graphs = GraphedSteps(decoder.model, lambda step: step)
    return decoder


@pytest.fixture(params=["plain", "graphed", "prompts read once"])
def way(request, monkeypatch):
    monkeypatch.setattr(graphs, "MIN_ROWS", 2)  # several graphs, most of them with idle rows
    monkeypatch.setattr(graphs, "MIN_WIDTH", 2)
    if request.param == "prompts read once":
        monkeypatch.setattr(prompt_groups, "SPLIT_COST", -100)  # always, not only where it pays
    return request.param


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_log_probs_on_random_schedules_are_those_of_a_plain_forward(name, way):
    rng = np.random.default_rng(0)
    for _ in range(10):
        play(decoder_of(name, way), name, lambda n: int(rng.integers(n)), 40)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_log_probs_on_any_schedule_are_those_of_a_plain_forward(name, data):
    play(decoder_of(name), name, lambda n: data.draw(st.integers(0, n - 1)), 6)


@pytest.mark.parametrize(
    "name", ["qwen2", "qwen3", "gpt_neox", "mistral", "gemma2", "deepseek", "llama eager", *VIRTUAL]
)
def test_other_architectures_and_kinds_of_attention_decode_to_the_same(name, way):
    rng = np.random.default_rng(0)
    for _ in range(3):
        play(decoder_of(name, way), name, lambda n: int(rng.integers(n)), 40)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_hidden_states_that_a_caller_holds_do_not_change(name):
    decoder, rows = decoder_of(name), np.stack([row([0]), row([1, 0])])
    held, _ = decoder.hidden(torch.from_numpy(rows))
    before = held.clone()
    for t in range(3):
        rows[0, P + t] = 1
        decoder.hidden(torch.from_numpy(rows))
    assert torch.equal(held, before)


def test_a_first_call_on_ended_rows_alone_gives_zeros():
    check(Decoder(model_named("llama"), MDP), "llama", np.stack([row([0], [2]), row([1], [0] * T)]))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_a_call_after_a_failed_one_is_right(error, monkeypatch):
    decoder, rows = decoder_of("llama", False), np.stack([row([0, 1]), row([1, 0])])
    check(decoder, "llama", rows)
    rows = np.stack([row([1, 1, 0]), row([0, 0])])

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(decoder.model.base_model, "forward", fail)
        with pytest.raises(error):
            decoder.logits(torch.from_numpy(rows))
    check(decoder, "llama", rows)


# ---- cost ----


@pytest.fixture
def fed():
    """The shapes of what goes through the trunk of "llama"."""
    shapes = []

    def note(module, args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))

    handle = model_named("llama").base_model.register_forward_pre_hook(note, with_kwargs=True)
    yield shapes
    handle.remove()


def feeds(decoder, fed, *rows):
    """What a call on these rows feeds; its result is checked as well."""
    truth("llama"), fed.clear()
    check(decoder, "llama", np.stack(rows))
    return list(fed)


def test_a_row_costs_a_token_a_step_and_nothing_when_it_ends_or_waits(fed):
    decoder = Decoder(model_named("llama"), MDP)
    assert feeds(decoder, fed, row([0, 1]), row([1, 0, 0])) == [(2, 3)]
    assert feeds(decoder, fed, row([0, 1]), row([1, 0, 0])) == []
    assert feeds(decoder, fed, row([0, 1], [1]), row([1, 0, 0], [0])) == [(2, 1)]
    assert feeds(decoder, fed, row([0, 1], [1, 2]), row([1, 0, 0], [0, 1])) == [(1, 1)]
    assert feeds(decoder, fed, row([0, 1], [1, 2]), row([1, 0, 0], [0, 1])) == []
    assert feeds(decoder, fed, row([0, 1], [1, 2]), row([1, 0, 0], [0, 1, 0])) == [(1, 1)]
    assert feeds(decoder, fed, row([0, 1], [1, 2]), row([1, 0, 0], [0, 1, 0, 2])) == []


def test_a_prompt_group_is_prefilled_once_and_a_mate_that_begins_later_not_at_all(fed):
    decoder, a, b = Decoder(model_named("llama"), MDP), [0, 1], [1, 1, 0]
    assert feeds(decoder, fed, row(a), row(a), row(b), row(b)) == [(2, 3)]
    assert feeds(decoder, fed, row(a, [1]), row(a, [2]), row(b, [0]), row(b, [0])) == [(3, 1)]
    assert feeds(decoder, fed, row(a, [1, 0]), row(a), row(b, [0, 0]), row(b, [0, 1])) == [(3, 1)]  # copied from row 0
    assert feeds(decoder, fed, row(b), row(a, [1]), row(a), row(b, [0, 1, 1])) == [(2, 1)]  # exchanged
    assert feeds(decoder, fed, row(b, [0]), row(a, [1, 1]), row([0]), row([0])) == [(1, 1), (2, 1)]  # a new prompt
    assert feeds(decoder, fed, row(b), row(a), row(a), row([0])) == []


def test_memory_is_a_slot_a_row_and_does_not_grow(rng):
    model = model_named("llama")
    slot = 2 * 2 * 2 * 8 * (P + T) * 4  # keys and values, layers, heads, head size, tokens, bytes of a float32
    decoder, peak = Decoder(model, MDP), set()
    assert decoder.cache_bytes == 0
    for episode in range(20):
        rows = np.stack([row(rng.integers(0, V, 1 + episode % P)) for _ in range(4)])
        for t in range(T):
            decoder.logits(torch.from_numpy(rows))
            rows[:, P + t] = rng.integers(0, 2, 4)
            peak.add(decoder.cache_bytes)
        if episode == 10:
            decoder.reset()
    assert peak == {4 * slot}
    decoder.logits(torch.from_numpy(rows[:1]))
    decoder.logits(torch.from_numpy(np.stack([row([0])])))
    assert decoder.cache_bytes == slot


# ---- graphs ----


def test_where_capturing_fails_a_warning_says_why_and_decoding_goes_on(monkeypatch):
    def fail(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    decoder, rng = Decoder(model_named("gpt2"), MDP), np.random.default_rng(0)
    decoder._graphs = GraphedSteps(decoder.model, fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        play(decoder, "gpt2", lambda n: int(rng.integers(n)), 40)
    assert [str(w.message) for w in caught] == [
        "decoding without CUDA graphs, because capturing one failed: operation not permitted when stream is capturing"
    ]


def test_one_graph_serves_all_steps_of_its_size():
    captured = []
    decoder = Decoder(model_named("llama"), MDP)
    decoder._graphs = GraphedSteps(decoder.model, lambda step: captured.append(step) or step)
    for t in range(3):
        for k in range(1, 5):  # ever more rows grow
            check(decoder, "llama", np.stack([row([0, 1], [1] * (t + (i < k))) for i in range(4)]))
    assert len(captured) == 1
    check(decoder, "llama", np.stack([row([0]), row([1])]))
    check(decoder, "llama", np.stack([row([0], [0]), row([1], [0])]))
    assert len(captured) == 2  # another number of slots is another cache


def test_a_graph_is_captured_without_the_weights_that_autocast_keeps_for_a_while():
    """A replay would read them after autocast has freed them: the casts must be part of the graph."""
    caching, decoder = [], Decoder(model_named("gpt2"), MDP)

    def capture(step):
        caching.append(torch.is_autocast_cache_enabled())
        return step

    decoder._graphs = GraphedSteps(decoder.model, capture)
    with torch.autocast("cpu", torch.bfloat16):
        for completion in ([], [0]):
            decoder.logits(torch.from_numpy(np.stack([row([0, 1], completion)])))
        assert torch.is_autocast_cache_enabled() and torch.is_autocast_enabled("cpu")
    assert caching == [False]


GROUPED = {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ARCHITECTURES = {
    "Llama": GROUPED,
    "Mistral": GROUPED | {"sliding_window": None},
    "Mixtral": GROUPED | {"num_local_experts": 4, "sliding_window": None},
    "Qwen2": GROUPED,
    "Qwen3": HEADS,
    "Qwen2Moe": GROUPED
    | {"num_experts": 4, "num_experts_per_tok": 2}
    | dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    "Gemma": HEADS,
    "Gemma2": HEADS,
    "Phi": GROUPED,
    "Phi3": GROUPED,
    "GPTNeo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4, "window_size": 32},
    "GPTNeoX": {},
    "GPTJ": OLD | {"rotary_dim": 4},
    "GPTBigCode": OLD,
    "CodeGen": OLD | {"rotary_dim": 4},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "StableLm": GROUPED,
    "Starcoder2": GROUPED,
    "Cohere": GROUPED,
    "Olmo2": GROUPED,
    "SmolLM3": GROUPED,
    "Granite": GROUPED,
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "Glm": HEADS,
}
REFUSED = {
    (
        "OPT",
        "PROMPT_TUNING",
    ): "PROMPT_TUNING does not fit the model .*OPTForCausalLM.*peft's own forward pass has other",
    (
        "OPT",
        "PREFIX_TUNING",
    ): "PREFIX_TUNING does not fit the model .*OPTForCausalLM.*peft's own forward pass has other",
    ("Mpt", "PROMPT_TUNING"): "PROMPT_TUNING does not fit the model .*MptForCausalLM.*num_attention_heads",
    ("Mpt", "PREFIX_TUNING"): "PREFIX_TUNING does not fit the model .*MptForCausalLM.*num_attention_heads",
}
KINDS = {
    "LORA": {"r": 4},
    "ADALORA": {"total_step": 9},
    "IA3": {"target_modules": "all-linear", "feedforward_modules": []},
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
}


def decoded(made, rows):
    """Log-probabilities of the completions' tokens, (N, T), as in sampling: one token after the other."""
    result = torch.zeros(len(rows), T)
    for t in range(T):
        states = rows.clone()
        states[:, P + t :] = MDP.pad_id
        log_probs, _, live = made.decode(states)
        every, drawn = torch.zeros(len(rows), V), rows[:, P + t]
        every[live] = log_probs
        result[:, t] = every.gather(-1, drawn[:, None].clamp(max=V - 1))[:, 0] * (drawn != MDP.pad_id)
    return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the key-value cache of the model 'Mpt")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_adapters_of_every_kind_decode_as_they_train_or_are_refused(name, kind):
    config = {"peft_type": kind, **KINDS[kind]}
    if message := REFUSED.get((name, kind)):
        with pytest.raises(ValueError, match=message):
            TokenModel(MDP, small(name, **ARCHITECTURES[name]), peft=config)
        return
    untrained, made = (TokenModel(MDP, small(name, **ARCHITECTURES[name]), peft=peft) for peft in (None, config))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in made.model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
    rows = torch.from_numpy(
        np.stack([row([0], [1, 0, 2]), row([1, 0], [1, 0, 0]), row([1, 0], [0]), row([0, 1, 1], [1] * 5)])
    )
    trained = made.evaluate_episodes(rows, rows[:, P:]).log_probs
    torch.testing.assert_close(decoded(made, rows), trained.detach(), atol=1e-4, rtol=0)
    trained.sum().backward()
    assert all(p.grad.isfinite().all() for p in made.model.parameters() if p.requires_grad)
    plain = untrained.evaluate_episodes(rows, rows[:, P:]).log_probs.detach()
    assert (trained - plain).abs().max() > 0.01  # Cohere divides its logits by 16
    with made.adapters_off():
        found = made.terms_under(made.model, rows, rows[:, P:]).log_probs
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)
