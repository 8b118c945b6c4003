"""The decoder and the one-pass forward against an unpadded, uncached forward of every row."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tests.conftest import small_gpt2, small_llama
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
