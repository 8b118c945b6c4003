"""Action spaces of envs that forbid tokens: what they draw, and that random policies and checkers work with them."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from stable_baselines3.common.env_checker import check_env as check_by_sb3

from tests.conftest import CHARACTERS, count_tokens

RESTRICTED = {**CHARACTERS, "scorer": count_tokens, "allowed_tokens": [0, 2, 4], "min_new_tokens": 2}
"""Of the tokens 0 to 4 the first two may be chosen at every step, and 4, the end of the text, only later."""


def make(num_envs=None, **kwargs):
    if num_envs is None:
        return gym.make("TextGen-v0", **kwargs)
    return gym.make_vec("TextGen-v0", num_envs=num_envs, **kwargs)


def test_a_sample_is_a_token_that_is_permitted_at_every_step():
    space, spaces = make(**RESTRICTED).action_space, make(3, **RESTRICTED).action_space
    for one in (space, spaces, copy.deepcopy(space), pickle.loads(pickle.dumps(spaces))):
        one.seed(0)
        drawn = np.array([one.sample() for _ in range(200)])
        assert set(drawn.ravel().tolist()) == {0, 2} and one.contains(one.sample())
        assert abs((drawn == 0).mean() - 0.5) < 4 * 0.5 / 200**0.5
    assert drawn.shape == (200, 3)


def test_a_mask_or_probabilities_count_more():
    space, spaces = make(**RESTRICTED).action_space, make(2, **RESTRICTED).action_space
    only = np.eye(5, dtype=np.int8)[4]
    assert space.sample(only) == 4 and space.sample(probability=only.astype(np.float64)) == 4
    assert spaces.sample((only, only)).tolist() == [4, 4]


def test_the_spaces_are_those_of_the_vocabulary():
    assert make(**RESTRICTED).action_space == Discrete(5) == make(**CHARACTERS).action_space
    assert make(3, **RESTRICTED).action_space == MultiDiscrete([5] * 3) == make(3, **CHARACTERS).action_space
    assert type(make(**CHARACTERS).action_space) is Discrete


@pytest.mark.filterwarnings("ignore")
def test_both_checkers_accept_an_env_that_forbids_tokens():
    check_by_gymnasium(make(**RESTRICTED).unwrapped)
    check_by_sb3(make(**RESTRICTED))
