"""TorchRL's data beside hand runs; run by test_in_environments.py, where torchrl is installed."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torchrl.envs import GymEnv, GymWrapper
from torchrl.envs.utils import check_env_specs

from scripts.recipes.torchrl_ppo import ENV_ID, make_actor, make_env, train
from tests.helpers.hand_runs import hand_run
from textgym.wrappers import VectorConstantInfo


def recorded(rollout):
    """What `hand_run` wants of a rollout, (N, steps, ...) or (steps, ...)."""
    rollout = rollout[None] if rollout.ndim == 1 else rollout
    data = rollout["observation"], rollout["action"], rollout["next", "reward"][..., 0], rollout["next", "done"][..., 0]
    return [part.transpose(0, 1).numpy() for part in (*data, rollout["next", "observation"])]


@pytest.mark.parametrize("num_envs", [None, 16])
def test_every_transition_is_the_envs(num_envs):
    torch.manual_seed(0)
    env = make_env(num_envs)
    check_env_specs(env)
    rollout = env.rollout(4000 // (num_envs or 1), make_actor(env), break_when_any_done=False)
    assert rollout["action"].dtype == rollout["observation"].dtype == torch.int64
    run = hand_run(ENV_ID, *recorded(rollout))
    assert run.steps == 4000 and len(run.episodes) > 400 and not run.wrong


def test_without_categorical_action_encoding_actions_are_one_hot():
    env = GymEnv("TextGen-v0")
    assert env.rollout(3)["action"].shape == (3, 3072)


def test_the_second_rollout_over_same_step_begins_in_the_past():
    """findings/torchrl_same_step_second_rollout_starts_in_the_past.sh; the first one is right."""
    env = GymWrapper(VectorConstantInfo(gym.make_vec(ENV_ID, num_envs=16)), categorical_action_encoding=True)
    wrong = [hand_run(ENV_ID, *recorded(env.rollout(100))).wrong for _ in range(20)]
    assert not wrong[0] and sum(w["next observation"] > 0 for w in wrong) > 10


def test_without_constant_info_same_step_ends_in_an_error():
    env = GymWrapper(gym.make_vec("TextGen-v0", num_envs=2), categorical_action_encoding=True)
    check_env_specs(env)
    with pytest.raises(KeyError, match="prompt_id"):
        env.rollout(100, break_when_any_done=False)


def test_next_step_is_refused():
    with pytest.raises(RuntimeError, match="SAME_STEP or DISABLED"):
        GymWrapper(gym.make_vec(ENV_ID, num_envs=2, autoreset_mode="NextStep"))


def test_it_learns():
    torch.manual_seed(0)
    means = train(make_env(32), total_frames=20_000)
    assert np.mean(means[:2]) < 0.25 and np.mean(means[-2:]) > 0.7
