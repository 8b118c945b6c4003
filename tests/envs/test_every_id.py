"""Every id of the registry: both checkers, Gymnasium's and stable-baselines3's, and 10,000 random steps."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from stable_baselines3.common.env_checker import check_env as check_by_sb3

from tests.conftest import SMOLLM2
from textgym.tasks import TASKS

pytestmark = pytest.mark.slow
STEPS, ROWS = 10_000, 20
IDS = [
    pytest.param(env_id, marks=pytest.mark.skipif("SmolLM2" in env_id and not SMOLLM2, reason="needs SmolLM2"))
    for env_id in TASKS
]


@pytest.mark.parametrize("env_id", IDS)
def test_both_checkers(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about observations that are images or normalised
        check_by_gymnasium(gym.make(env_id).unwrapped)
        check_by_sb3(gym.make(env_id))


@pytest.mark.parametrize("env_id", IDS)
def test_random_steps_of_the_single_env(env_id):
    env, (low, high) = gym.make(env_id), TASKS[env_id].reward_range
    mdp = env.unwrapped.mdp
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    total = 0.0
    for _ in range(STEPS):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        total += reward
        assert observation in env.observation_space and np.isfinite(reward) and not truncated
        assert terminated == mdp.ended(observation)
        if terminated:
            assert low - 1e-9 <= total <= high and set(env.unwrapped.scorer.component_names) <= set(info)
            env.reset()
            total = 0.0


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("env_id", IDS)
def test_random_steps_of_the_vector_env(env_id, mode):
    envs, (low, high) = gym.make_vec(env_id, num_envs=ROWS, autoreset_mode=mode), TASKS[env_id].reward_range
    envs.action_space.seed(0)
    envs.reset(seed=0)
    totals, done = np.zeros(ROWS), np.zeros(ROWS, bool)
    for _ in range(STEPS // ROWS):
        observations, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        totals += rewards
        assert observations in envs.observation_space and np.isfinite(rewards).all() and not truncated.any()
        assert ((low - 1e-9 <= totals) & (totals <= high))[terminated].all()
        assert not rewards[done].any()
        if mode == "Disabled":
            done |= terminated
            if done.all():
                envs.reset(options={"reset_mask": done.copy()})
                totals[:], done[:] = 0, False
        else:
            totals[terminated] = 0
            done = terminated if mode == "NextStep" else done
