"""Discrete contexts, single and vector, against enumeration."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import textgym  # noqa: F401 (registers the ids)
from textgym.wrappers import DiscreteContexts, VectorDiscreteContexts


def small(**kwargs):
    return gym.make("TextGenToy-v0", **{"num_tokens": 2, "max_new_tokens": 3, **kwargs})


def test_single():
    env = DiscreteContexts(small())
    # (); 0, 1; 00, 01, 10, 11: seven contexts, and 7 is the end
    assert env.num_contexts == 7 and env.observation_space == spaces.Discrete(8)
    assert env.reset()[0] == 0
    assert [env.step(token)[0] for token in (1, 0, 1)] == [2, 5, 7]
    env.reset()
    observed = [env.step(token)[0] for token in (0, 2)]
    assert observed == [1, 7] and all(isinstance(o, np.int64) for o in observed)
    assert env.action_space == spaces.Discrete(3)


def test_gymnasium_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version")
        check_env(DiscreteContexts(small().unwrapped))


@pytest.mark.parametrize(("mode", "after_the_end"), [("SameStep", 0), ("Disabled", 7)])
def test_vector(mode, after_the_end):
    kwargs = {"num_tokens": 2, "max_new_tokens": 3, "autoreset_mode": mode}
    env = VectorDiscreteContexts(gym.make_vec("TextGenToy-v0", num_envs=3, **kwargs))
    assert env.num_contexts == 7 and env.single_observation_space == spaces.Discrete(8)
    obs, _ = env.reset()
    assert obs.tolist() == [0, 0, 0] and obs in env.observation_space and obs.dtype == np.int64
    assert env.step(np.array([0, 1, 2]))[0].tolist() == [1, 2, after_the_end]
    obs, _, ended, _, info = env.step(np.array([2, 0, 0]))
    assert obs.tolist() == [after_the_end, 5, 1 if mode == "SameStep" else 7]
    assert ended.tolist() == [True, False, False]
    if mode == "SameStep":
        assert info["final_obs"] in env.observation_space and info["final_obs"][info["_final_obs"]].tolist() == [7]


def test_any_env_of_the_form_is_accepted():
    env = DiscreteContexts(gym.make("TextGenChars-v0"))
    assert env.num_contexts == (4**8 - 1) // 3
    env.reset()
    assert [env.step(token)[0] for token in (3, 0)] == [4, 4 * 4 + 1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_prompt_tokens": 3}, "max_prompt_tokens=3"),
        ({"eos_token_ids": [3]}, r"eos_token_ids=\(3,\)"),
        ({"eos_token_ids": [3, 4]}, r"eos_token_ids=\(3, 4\)"),
        ({"max_new_tokens": 13}, "too large to enumerate"),
    ],
)
def test_other_forms_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DiscreteContexts(gym.make("TextGenChars-v0", **kwargs))
    with pytest.raises(ValueError, match=message):
        VectorDiscreteContexts(gym.make_vec("TextGenChars-v0", num_envs=2, **kwargs))


def test_other_prompts_are_refused():
    with pytest.raises(ValueError, match=r"after the empty prompt \(BOS alone\)"):
        DiscreteContexts(gym.make("TextGenChars-v0", prompts=["a"])).reset()
    with pytest.raises(ValueError, match="it has no TextMDP"):
        DiscreteContexts(gym.make("CartPole-v1"))
