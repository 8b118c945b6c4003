"""The one-pass forward against an unpadded, uncached forward of every row; which models are refused, and why."""

import numpy as np
import pytest
import torch

from tests.conftest import small_gpt2, small_llama
from tests.helpers.models import small
from textgym.language_models.forward import (
    check_model,
    hidden_states,
    left_aligned,
    logits_of,
    memory_advice,
    state_hidden,
)
from textgym.language_models.shared_prompts import episode_logits
from textgym.mdp import TextMDP, first_observation, model_inputs

MDP = TextMDP(vocab_size=5, max_prompt_tokens=4, max_new_tokens=6, eos_token_ids=(4,), bos_token_id=4)
MODELS = {"llama": small_llama(vocab_size=8), "gpt2": small_gpt2(vocab_size=8)}  # embeddings larger than V


def row(prompt, completion):
    observation = first_observation(MDP, prompt)
    observation[4 : 4 + len(completion)] = completion
    return observation


def plain_logits(model, observation):
    """Ground truth: the real tokens alone, no mask, no cache."""
    ids = torch.from_numpy(observation[observation != MDP.pad_id])[None]
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits[0, -1, :5]


def test_left_aligned_rows_begin_in_column_0_and_repeat_their_last_token():
    ids, lengths = left_aligned(
        MDP, torch.from_numpy(np.stack([row([1], [2, 3]), row([0, 3, 2, 1], []), row([4], [])]))
    )
    assert ids.tolist() == [[1, 2, 3, 3], [0, 3, 2, 1], [4, 4, 4, 4]] and lengths.tolist() == [3, 4, 1]


@pytest.mark.parametrize("name", MODELS)
def test_one_pass_gives_every_step_of_every_episode(name, rng):
    model = MODELS[name]
    lengths = [6, 1, 3, 6, 0]
    batch = np.stack(
        [row(rng.integers(0, 5, p), rng.integers(0, 5, n)) for p, n in zip([1, 4, 2, 3, 2], lengths, strict=True)]
    )
    with torch.no_grad():
        logits = episode_logits(model, MDP, torch.from_numpy(batch))
        states = logits_of(model, state_hidden(model, MDP, torch.from_numpy(batch)), 5)
    assert logits.shape == (5, 6, 5)
    for i, length in enumerate(lengths):
        torch.testing.assert_close(states[i], plain_logits(model, batch[i]), atol=1e-4, rtol=0)
        assert (logits[i, length:] == 0).all()
        for t in range(length):
            state = batch[i].copy()
            state[4 + t :] = MDP.pad_id
            torch.testing.assert_close(logits[i, t], plain_logits(model, state), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_model_inputs_of_ragged_rows_give_the_next_token_last(name, rng):
    model = MODELS[name]
    batch = np.stack([row([1], [2, 3, 1]), row([4, 0, 2, 2], []), row([3, 3], [1])])
    with torch.no_grad():
        logits = model(**model_inputs(batch, MDP.pad_id)).logits[:, -1, :5]
    for i in range(3):
        torch.testing.assert_close(logits[i], plain_logits(model, batch[i]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "kwargs", "scaling"),
    [
        (
            "Gemma2",
            {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 1.5},
            lambda x: 1.5 * (x / 1.5).tanh(),
        ),
        ("Cohere", {"num_key_value_heads": 2, "logit_scale": 0.0625}, lambda x: x / 16),
        ("Granite", {"num_key_value_heads": 2, "logits_scaling": 4.0}, lambda x: x / 4),
    ],
)
def test_the_head_scales_logits_as_the_architecture_does(name, kwargs, scaling):
    model, ids = small(name, 5, **kwargs), torch.tensor([[1, 4, 2, 0, 3]])
    with torch.no_grad():
        hidden = hidden_states(model, ids)
        logits, expected = logits_of(model, hidden, 5), model(input_ids=ids, use_cache=False).logits
        unscaled = model.lm_head(hidden)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(expected, scaling(unscaled), atol=1e-6, rtol=1e-5)
    assert (expected - unscaled).abs().max() > 1e-2  # the scaling does something
    check_model(model, MDP)


def unusual(kind):
    """Models that cannot play the MDP."""
    from transformers import (
        AutoModelForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
        MambaConfig,
        MambaForCausalLM,
    )

    llama = small_llama()
    if kind == "hooked":  # as an architecture would be whose scaling is not known
        llama.register_forward_hook(lambda module, args, output: setattr(output, "logits", output.logits * 1.5))
    return {
        "few tokens": lambda: small_llama(vocab_size=4),
        "few positions": lambda: small_llama(max_position_embeddings=9),
        "n_positions": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=5, n_positions=9, n_embd=32, n_layer=1, n_head=2)),
        "small window": lambda: small("Mistral", num_key_value_heads=2, sliding_window=9),
        "trunk": lambda: llama.base_model,
        "classifier": lambda: AutoModelForSequenceClassification.from_config(llama.config),
        "recurrent": lambda: MambaForCausalLM(MambaConfig(vocab_size=5, hidden_size=16, num_hidden_layers=1)),
        "hooked": lambda: llama,
    }[kind]().eval()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("few tokens", "'LlamaForCausalLM' embeds 4 tokens, the env's tokenizer has 5; they do not belong together"),
        (
            "few positions",
            r"has 9 positions, an episode up to 10 tokens; lower max_prompt_tokens \(4\) or max_new_tokens",
        ),
        ("n_positions", "has 9 positions, an episode up to 10 tokens"),
        ("small window", "'MistralForCausalLM' attends to 9 tokens only, an episode has up to 10"),
        ("trunk", r"\(LlamaModel\) has no causal language-modelling head"),
        ("classifier", r"\(LlamaForSequenceClassification\) has no causal language-modelling head"),
        ("recurrent", "'MambaForCausalLM' is recurrent; only models with a key-value cache are supported"),
        ("hooked", "the logits of 'LlamaForCausalLM' .* are not its head's of its last hidden states"),
    ],
)
def test_a_model_that_cannot_play_is_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        check_model(unusual(kind), MDP)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_numbers_are_refused(dtype):
    model = small_llama().to(dtype)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(
        ValueError, match=r"logits of 'LlamaForCausalLM' are not numbers \(nan\); its weights are damaged"
    ):
        check_model(model, MDP)


def test_models_that_just_suffice_are_accepted():
    for model in (
        small_llama(max_position_embeddings=10),
        small("Mistral", num_key_value_heads=2, sliding_window=10),
        small("Qwen2", num_key_value_heads=2, sliding_window=4, use_sliding_window=False),  # it has one, unused
    ):
        check_model(model, MDP)


def test_only_an_exhausted_memory_gets_advice():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        with (
            pytest.raises(torch.OutOfMemoryError, match="does not fit into memory; buy more") as caught,
            memory_advice("buy more"),
        ):
            raise error
        assert caught.value.__cause__ is error
    with pytest.raises(RuntimeError, match="^shapes$"), memory_advice("buy more"):
        raise RuntimeError("shapes")
