"""Tianshou's data beside hand runs; run by test_in_environments.py, where tianshou is installed."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.torch_utils import policy_within_training_step

from scripts.recipes.tianshou_dqn import ENV_ID, make_algorithm, make_envs, train
from tests.helpers.hand_runs import hand_run


def collected(steps, **kwargs):
    """Steps of 16 rows of which each token is drawn at random, and the collector's statistics."""
    torch.manual_seed(0), np.random.seed(0)
    algorithm, buffer = make_algorithm(eps_training=1.0), VectorReplayBuffer(steps, 16)
    collector = Collector(algorithm, make_envs(16, **kwargs), buffer, exploration_noise=True)
    collector.reset()
    with policy_within_training_step(algorithm.policy):
        statistics = collector.collect(n_step=steps)
    rows = (buffer.obs.obs, buffer.act, buffer.rew, buffer.done, buffer.obs_next.obs)  # one part after the other
    return buffer, statistics, [part.reshape(16, -1, *part.shape[1:]).swapaxes(0, 1) for part in rows]


def test_every_transition_is_the_envs():
    buffer, statistics, data = collected(8000)
    run = hand_run(ENV_ID, *data)
    assert buffer.obs.obs.dtype == buffer.act.dtype == np.int64
    assert run.steps == 8000 and len(run.episodes) > 1500 and not run.wrong
    assert run.has(list(zip(statistics.returns, statistics.lens, strict=True)))


def test_masked_tokens_are_never_chosen():
    _, statistics, data = collected(1600, min_new_tokens=3)
    run = hand_run(ENV_ID, *data, min_new_tokens=3)
    assert not run.wrong and min(statistics.lens) == 4  # three tokens and EOS


def test_without_a_training_step_nothing_is_explored():
    """`exploration_noise=True` then goes by `eps_inference`, which is 0: every episode is the same."""
    algorithm, buffer = make_algorithm(eps_training=1.0), VectorReplayBuffer(800, 16)
    collector = Collector(algorithm, make_envs(16), buffer, exploration_noise=True)
    collector.reset()
    collector.collect(n_step=800)
    assert len(np.unique(np.column_stack([buffer.obs.obs, buffer.act]), axis=0)) <= 8


def test_gymnasiums_vector_envs_are_refused():
    with pytest.raises(TypeError, match="len"):
        Collector(make_algorithm(), gym.make_vec(ENV_ID, num_envs=4))
    assert len(DummyVectorEnv([lambda: gym.make(ENV_ID)])) == 1


def test_it_learns():
    torch.manual_seed(0), np.random.seed(0)
    assert train(8000) > 0.9
