"""The same keys, types and shapes in every info."""

import gymnasium as gym
import numpy as np
import pytest

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.wrappers import (
    ConstantInfo,
    CounterfactualCredit,
    PotentialShaping,
    ReferenceReward,
    VectorConstantInfo,
    VectorCounterfactualCredit,
    VectorPotentialShaping,
    VectorReferenceReward,
)

TASK = {
    **CHARACTERS,
    "scorer": {
        "name": "weighted_sum",
        "scorers": ["sentiment", {"name": "length", "target": 3}, {"name": "keyword", "words": ["a"]}],
    },
}
EPISODE = {"episode": {"r": 0.0, "l": 0, "t": 0.0}}


def length(observations):
    return (observations != 5).sum(-1)


def shape_of(value):
    """The structure of an info: keys, dtypes and shapes."""
    if isinstance(value, dict):
        return {name: shape_of(one) for name, one in value.items()}
    array = np.asarray(value)
    return array.dtype.kind, array.shape


def everything(env, vector):
    """All wrappers that bring keys of their own."""
    shaping, reference, credit = (
        (VectorPotentialShaping, VectorReferenceReward, VectorCounterfactualCredit)
        if vector
        else (PotentialShaping, ReferenceReward, CounterfactualCredit)
    )
    return credit(reference(shaping(env, length), small_llama(), 0.1), small_llama())


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_single(wrapped, restricted, rng):
    kwargs = TASK | ({"banned_tokens": [2]} if restricted else {})
    inner = gym.make("TextGen-v0", **kwargs)
    inner = gym.wrappers.RecordEpisodeStatistics(everything(inner, vector=False)) if wrapped else inner
    env = ConstantInfo(inner, EPISODE if wrapped else None)
    _, info = env.reset(seed=0)
    keys = {"prompt_id", "eos", "sentiment", "length", "keyword"} | ({"action_mask"} if restricted else set())
    assert set(info) == keys | ({"unshaped_return", "credits", "episode"} if wrapped else set())
    first, ends = shape_of(info), 0
    for _ in range(40):
        *_, terminated, _, info = env.step(int(rng.choice([0, 1, 3, 4])))
        assert shape_of(info) == first
        assert (info["length"] == 0 or terminated) and info["prompt_id"] == env.unwrapped._prompt_id
        if wrapped:
            assert info["credits"].any() <= terminated and (info["episode"]["l"] > 0) == terminated
        if terminated:
            ends += 1
            _, info = env.reset()
            assert shape_of(info) == first
    assert ends > 4


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_vector(wrapped, mode, rng):
    inner = gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode=mode, **TASK)
    inner = everything(inner, vector=True) if wrapped else inner
    env = VectorConstantInfo(inner)
    plain = gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode=mode, **TASK)
    _, info = env.reset(seed=0)
    plain.reset(seed=0)
    first, ends = shape_of(info), 0
    assert ("final_info" in info) == (mode == "SameStep")
    for _ in range(40):
        if not env.unwrapped._num_live:
            assert shape_of(env.reset()[1]) == first
            plain.reset()
        actions = rng.integers(5, size=3)
        *_, terminations, _, info = env.step(actions)
        expected = plain.step(actions)[-1]
        assert shape_of(info) == first and info["_prompt_id"].all()
        assert (info["prompt_id"] == env.unwrapped._prompt_ids).all()
        at_end, wanted = info.get("final_info", info), expected.get("final_info", expected)
        for name in ("length", "sentiment", "keyword", "eos"):
            assert (at_end[f"_{name}"] == terminations).all()
            assert not at_end[name][~terminations].any()
            if terminations.any():
                np.testing.assert_array_equal(at_end[name][terminations], wanted[name][terminations])
        if mode == "SameStep":
            assert (info["final_obs"][~terminations] == 5).all() and (info["_final_obs"] == terminations).all()
            assert (at_end["prompt_id"][~terminations] == -1).all()
            if terminations.any():
                np.testing.assert_array_equal(info["final_obs"], expected["final_obs"])
        if wrapped:
            assert not at_end["credits"][~terminations].any() and not at_end["unshaped_return"][~terminations].any()
            returns = at_end["sentiment"] + at_end["length"] + at_end["keyword"]
            np.testing.assert_allclose(at_end["unshaped_return"], returns)
        ends += terminations.sum()
    assert ends > 8


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_further_keys_of_a_vector_env(mode, rng):
    inner = gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode=mode, **TASK)
    env = VectorConstantInfo(gym.wrappers.vector.RecordEpisodeStatistics(inner), EPISODE)
    first = shape_of(env.reset(seed=0)[1])
    assert {"episode", "_episode"} <= set(first)
    for _ in range(6):
        *_, terminations, _, info = env.step(rng.integers(5, size=3))
        assert shape_of(info) == first and (info["_episode"] == terminations).all()
        if (
            mode == "Disabled"
        ):  # under SameStep, releases of Gymnasium before 1.4 count 0 for the first step of an episode
            assert ((info["episode"]["l"] > 0) == terminations).all()
        assert not info["episode"]["r"][~terminations].any()


def test_a_key_that_is_not_known_is_named():
    env = ConstantInfo(gym.wrappers.RecordEpisodeStatistics(gym.make("TextGen-v0", **TASK)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="info has the key 'episode', .* defaults={'episode': ...}"):
        env.step(4)
    inner = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", **TASK)
    vector = VectorConstantInfo(gym.wrappers.vector.RecordEpisodeStatistics(inner))
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="info has the key '_?episode'"):
        vector.step(np.array([4, 4]))


def test_what_is_done_to_an_info_reaches_no_other():
    env = ConstantInfo(CounterfactualCredit(gym.make("TextGen-v0", **TASK), small_llama()))
    _, info = env.reset(seed=0)
    info["credits"][:] = 3
    assert not env.step(0)[-1]["credits"].any()


def test_spec_as_json():
    env = ConstantInfo(gym.make("TextGen-v0", max_new_tokens=2), {"episode": 0.0})
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, ConstantInfo) and again.reset(seed=0)[1].keys() == env.reset(seed=0)[1].keys()


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_agents_learn_as_without_it(mode):
    def rewards(wrap):
        kwargs = {**CHARACTERS, "scorer": count_tokens, "autoreset_mode": mode, "num_generations": 4}
        env = wrap(gym.make_vec("TextGen-v0", num_envs=8, **kwargs))
        agent = REINFORCE("TokenPolicy", env, small_llama(), seed=0, device="cpu")
        agent.learn(100)
        episodes = agent.sample_episodes(8)
        return episodes.rewards.tolist(), episodes.components.tolist(), episodes.prompt_ids.tolist()

    assert rewards(VectorConstantInfo) == rewards(lambda env: env)


def test_a_single_env_s_agent_learns_as_without_it():
    def rewards(wrap):
        env = wrap(gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens))
        agent = REINFORCE("TokenPolicy", env, small_llama(), baseline="none", seed=0, device="cpu")
        agent.learn(20)
        return agent.sample_episodes(4).rewards.tolist()

    assert rewards(ConstantInfo) == rewards(lambda env: env)
