"""Numbers of other types than Python's, and numbers that cannot be learned with."""

from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest

from agents import GRPO, REINFORCE
from tests.helpers.checkpoints import agent
from textgym.sb3.checkpoints import AgentState
from textgym.training import state


def test_numbers_of_numpy_and_fractions_are_kept_as_numbers(tmp_path):
    env = gym.make_vec(
        "TextGen-v0",
        num_envs=np.int64(4),
        num_generations=np.int64(2),
        max_new_tokens=np.int64(3),
        banned_tokens=[np.int64(7)],
        autoreset_mode="Disabled",
    )
    numbers = {"learning_rate": np.float32(2**-10), "kl_coef": Fraction(1, 8), "seed": np.int64(3)}
    model = GRPO("TokenPolicy", env, "tiny", policy_kwargs={"temperature": np.float32(0.5)}, device="cpu", **numbers)
    model.learn(np.int64(1)).save(tmp_path / "a")
    loaded = GRPO.load(tmp_path / "a", env, device="cpu")
    assert (loaded.learning_rate, loaded.kl_coef, loaded.seed) == (2**-10, 0.125, 3)
    assert loaded.mdp == model.mdp and loaded.policy_kwargs["temperature"] == 0.5
    kept = state.read_state(tmp_path / "a", AgentState).env_kwargs
    assert kept is not None and kept["max_new_tokens"] == 3 and kept["banned_tokens"] == [7]


def test_what_cannot_be_learned_is_refused_by_name(tmp_path):
    model = agent()
    for interval in (0, -1, "a", True):
        with pytest.raises(ValueError, match="^log_interval is .*; it must be an integer of at least 1, or None"):
            model.learn(1, log_interval=interval)
    model.save(tmp_path / "a")
    with pytest.raises(ValueError, match="without an env cannot learn; pass env="):
        REINFORCE.load(tmp_path / "a").learn(1)
