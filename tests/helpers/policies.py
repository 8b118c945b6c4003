"""A policy without an env, episodes for it, and the ground truth of what it says of them."""

from functools import partial

import gymnasium as gym
import numpy as np
import torch

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.mdp import TextMDP, first_observation
from textgym.sb3 import TokenPolicy

MDP = TextMDP(vocab_size=5, max_prompt_tokens=3, max_new_tokens=6, eos_token_ids=(4,), bos_token_id=4)


def vector_env(n=16, **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=n, **{**CHARACTERS, "scorer": count_tokens, **kwargs})


def policy(model=None, mdp=MDP, **kwargs):
    """A policy without an env."""
    model = small_llama() if model is None else model
    return TokenPolicy(mdp.observation_space, mdp.action_space, lambda _: 1e-2, mdp=mdp, model=model, **kwargs)


def random_episodes(n=18, mdp=MDP):
    """Last observations of ragged episodes of random tokens, and their completions; every length of both."""
    rng, rows = np.random.default_rng(0), []
    others = [token for token in range(mdp.vocab_size) if token not in mdp.eos_token_ids]
    for i in range(n):
        row = first_observation(mdp, rng.integers(0, mdp.vocab_size, 1 + i % mdp.max_prompt_tokens))
        completion = rng.choice(others, 1 + i % mdp.max_new_tokens)
        if len(completion) < mdp.max_new_tokens or i % 2:
            completion[-1] = rng.choice(mdp.eos_token_ids)
        row[mdp.max_prompt_tokens :][: len(completion)] = completion
        rows.append(row)
    rows = torch.from_numpy(np.stack(rows))
    return rows, rows[:, mdp.max_prompt_tokens :]


def plain(made, model, row, mdp=MDP):
    """Ground truth of one episode: its tokens alone, no padding, no mask, no cache; values, log-probs, entropies."""
    ids, prompt = row[row != mdp.pad_id][None], int((row[: mdp.max_prompt_tokens] != mdp.pad_id).sum())
    output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    log_probs = output.logits[0, prompt - 1 : -1, : mdp.vocab_size].log_softmax(-1)
    values = made.token_model.value_net(output.hidden_states[-1][0, prompt - 1 : -1])[:, 0]
    chosen = log_probs.gather(-1, ids[0, prompt:, None])[:, 0]
    return values, chosen, -(log_probs.exp() * log_probs).sum(-1)


def plain_batch(made, model, rows, mdp=MDP):
    """`plain` of many episodes, one at a time; each (B, T), 0 at padding."""
    result = torch.zeros(3, len(rows), mdp.max_new_tokens)
    for i, row in enumerate(rows):
        terms = torch.stack(plain(made, model, row, mdp))
        result[:, i, : terms.shape[1]] = terms
    return result


SMALL_ENV = partial(vector_env, 8, autoreset_mode="Disabled", num_generations=4)
"""A function that makes eight rows of two prompts."""


def close(a, b, atol):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def give_values(made):
    """A value head that says something."""
    torch.nn.init.normal_(made.token_model.value_net.weight, generator=torch.Generator().manual_seed(0))
    return made


def agent_of(model=None, n=16, seed=0, algorithm=REINFORCE, policy_kwargs=None, **kwargs):
    env = vector_env(n, autoreset_mode="Disabled", num_generations=4, **kwargs)
    model = small_llama() if model is None else model
    return algorithm("TokenPolicy", env, model, seed=seed, device="cpu", policy_kwargs=policy_kwargs)
