"""The decoder and the one-pass forward against an unpadded, uncached forward of every row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import small_gpt2, small_llama
from textgym.language_models.decoder import LockstepDecoder
from textgym.language_models.forward import episode_logits
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


tokens = st.integers(0, 4)
rows = st.builds(row, st.lists(tokens, min_size=1, max_size=4), st.lists(tokens, max_size=6))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_cached_logits_are_those_of_a_plain_forward(name, data):
    """Schedules of rows that grow, wait, or are replaced at random; batch sizes that change."""
    model = MODELS[name]
    decoder = LockstepDecoder(model, MDP)
    n = data.draw(st.integers(1, 4))
    observations = np.stack(data.draw(st.lists(rows, min_size=n, max_size=n)))
    for _ in range(data.draw(st.integers(1, 8))):
        logits = decoder.logits(torch.from_numpy(observations))
        for observation, got in zip(observations, logits, strict=True):
            torch.testing.assert_close(got, plain_logits(model, observation), atol=1e-4, rtol=0)
        observations = observations.copy()
        for i in range(len(observations)):
            length = int(MDP.completion_lengths(observations[i]))
            action = data.draw(st.sampled_from(["grow", "grow", "grow", "wait", "replace"]))
            if action == "grow" and length < 6:
                observations[i, 4 + length] = data.draw(tokens)
            elif action == "replace":
                observations[i] = data.draw(rows)
        if data.draw(st.integers(0, 9)) == 0:
            observations = np.concatenate([observations, data.draw(rows)[None]])


@pytest.mark.parametrize("name", MODELS)
def test_lockstep_rows_feed_one_column_a_step(name):
    model, fed = MODELS[name], []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        decoder, observations = LockstepDecoder(model, MDP), np.stack([row([1, 2], []), row([3, 0, 1], [])])
        for t, actions in enumerate([(1, 2), (3, 4), (0, 5), (2, 5)]):  # the second row ends at its second token
            decoder.logits(torch.from_numpy(observations))
            decoder.logits(torch.from_numpy(observations))  # asking twice costs nothing
            observations[:, 4 + t] = actions
    finally:
        handle.remove()
    assert fed == [(2, 3), (2, 1), (2, 1), (2, 1)]


@pytest.mark.parametrize("name", MODELS)
def test_one_pass_gives_every_step_of_every_episode(name, rng):
    model = MODELS[name]
    lengths = [6, 1, 3, 6]
    batch = np.stack(
        [row(rng.integers(0, 5, p), rng.integers(0, 5, n)) for p, n in zip([1, 4, 2, 3], lengths, strict=True)]
    )
    with torch.no_grad():
        logits = episode_logits(model, MDP, torch.from_numpy(batch))
    assert logits.shape == (4, 6, 5)
    for i, length in enumerate(lengths):
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


def test_a_model_that_cannot_read_every_token_is_refused():
    with pytest.raises(ValueError, match="embeds 4 tokens, the env's tokenizer has 5"):
        LockstepDecoder(small_llama(vocab_size=4), MDP)
