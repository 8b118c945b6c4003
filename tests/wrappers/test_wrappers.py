"""What holds for all wrappers: names, checkers, copies, seeds, and which of them agents accept."""

import copy
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import textgym.wrappers
from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.sb3 import TextVecEnv
from textgym.wrappers import (
    ConstantInfo,
    CounterfactualCredit,
    EmbeddingActions,
    PotentialShaping,
    ReferenceReward,
    VectorConstantInfo,
    VectorCounterfactualCredit,
    VectorEmbeddingActions,
    VectorPotentialShaping,
    VectorReferenceReward,
)

TASK = {**CHARACTERS, "scorer": count_tokens}


def length(observations):
    return (observations != 5).sum(-1)


SINGLE = {
    "PotentialShaping": lambda env: PotentialShaping(env, length),
    "ReferenceReward": lambda env: ReferenceReward(env, small_llama(), 0.1),
    "CounterfactualCredit": lambda env: CounterfactualCredit(env, small_llama()),
    "ConstantInfo": ConstantInfo,
    "EmbeddingActions": lambda env: EmbeddingActions(env, np.eye(5).tolist()),
}
VECTOR = {
    "PotentialShaping": lambda env: VectorPotentialShaping(env, length),
    "ReferenceReward": lambda env: VectorReferenceReward(env, small_llama(), 0.1),
    "CounterfactualCredit": lambda env: VectorCounterfactualCredit(env, small_llama()),
    "ConstantInfo": VectorConstantInfo,
    "EmbeddingActions": lambda env: VectorEmbeddingActions(env, np.eye(5)),
}
ACCEPTED = [name for name in VECTOR if name != "EmbeddingActions"]


def test_names():
    names = set(textgym.wrappers.__all__) - {"counterfactual_credit", "vector"}
    assert {*SINGLE, "DiscreteContexts"} == set(textgym.wrappers.vector.__all__)
    assert names == set(textgym.wrappers.vector.__all__) | {f"Vector{name}" for name in textgym.wrappers.vector.__all__}
    for name in textgym.wrappers.vector.__all__:
        assert getattr(textgym.wrappers.vector, name) is getattr(textgym.wrappers, f"Vector{name}")


def test_importing_and_the_light_ones_need_no_torch():
    code = (
        "import sys, gymnasium as gym, textgym; from textgym.wrappers import *\n"
        "env = gym.make_vec('TextGenChars-v0', num_envs=2)\n"
        "env = VectorConstantInfo(VectorPotentialShaping(env, 'length'))\n"
        "env.reset(); env.step([0, 1]); assert 'torch' not in sys.modules"
    ).replace("'length'", "{'name': 'length', 'target': 3}")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", SINGLE)
def test_checkers(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version")
        check_env(SINGLE[name](gym.make("TextGen-v0", **TASK).unwrapped))
        sb3_check_env(SINGLE[name](gym.make("TextGen-v0", **TASK)))


def assert_same(first, second):
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, tuple | list):
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)  # a copy's cache is empty, so sums differ in order


def play(env, actions, count=30):
    """What an env returns to actions, with resets where it needs them."""
    seen, vector = [], hasattr(env, "num_envs")
    for action in actions[:count]:
        seen.append(env.step(action))
        if (not env.unwrapped._num_live) if vector else seen[-1][2]:
            seen.append(env.reset())
    return seen


def actions_of(env, seed=0):
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(40)]


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("mode", [None, "SameStep", "NextStep", "Disabled"])
def test_copies_go_on_alike_and_apart(mode, name, how):
    if mode is None:
        env = SINGLE[name](gym.make("TextGen-v0", **TASK))
    else:
        env = VECTOR[name](gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode=mode, **TASK))
    env.reset(seed=1)
    actions = actions_of(env)
    play(env, actions, 2)
    clone = how(env)
    expected = play(how(env), actions[2:])
    assert_same(play(clone, actions[2:]), expected)
    assert_same(play(env, actions[2:]), expected)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("mode", [None, "SameStep", "NextStep", "Disabled"])
def test_seeds_and_pins(mode, name):
    def episode(seed, options=None):
        if mode is None:
            env = SINGLE[name](gym.make("TextGen-v0", **TASK))
        else:
            env = VECTOR[name](gym.make_vec("TextGen-v0", num_envs=4, num_generations=2, autoreset_mode=mode, **TASK))
        return [env.reset(seed=seed, options=options), *play(env, actions_of(env))]

    assert_same(episode(3), episode(3))
    pin = {"prompt": "ab"} if mode is None else {"prompts": ["ab"] * 4}
    rows = episode(3, pin)[0][0]
    assert (np.atleast_2d(rows)[:, :3] == [5, 0, 1]).all()


@pytest.mark.parametrize("name", ACCEPTED)
def test_agents_accept_it(name):
    env = gym.make_vec("TextGen-v0", num_envs=4, num_generations=2, autoreset_mode="Disabled", **TASK)
    agent = REINFORCE("TokenPolicy", VECTOR[name](env), small_llama(), seed=0, device="cpu")
    agent.learn(30)
    assert agent._n_updates > 0
    REINFORCE("TokenPolicy", SINGLE[name](gym.make("TextGen-v0", **TASK)), small_llama(), baseline="none").learn(5)


def test_agents_of_tokens_refuse_vectors_as_actions():
    env = gym.make_vec("TextGen-v0", num_envs=4, **TASK)
    for refused in (
        TextVecEnv(VECTOR["EmbeddingActions"](env)),
        SINGLE["EmbeddingActions"](gym.make("TextGen-v0", **TASK)),
    ):
        with pytest.raises(ValueError, match="EmbeddingActions changes the env's action_space to Box"):
            REINFORCE("TokenPolicy", refused, small_llama(), baseline="none", device="cpu")
