"""The single env: every claim of its page, on every id."""

import copy
import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

import textgym
from tests.conftest import CHARACTERS, ENV_IDS, checksum, count_tokens


def make(scorer=count_tokens, **kwargs):
    return gym.make("TextGen-v0", **{**CHARACTERS, "scorer": scorer, **kwargs})


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_gymnasium_checker(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_sb3_checker(env_id):
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_spec_and_env_survive_json_and_pickle(env_id):
    env = gym.make(env_id, max_new_tokens=5)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    json.loads(env.spec.to_json())
    for other in (again, pickle.loads(pickle.dumps(env)), gym.make(pickle.loads(pickle.dumps(env.spec)))):
        a, b = env.reset(seed=3), other.reset(seed=3)
        np.testing.assert_equal(a, b)
        for _ in range(5):
            action = env.unwrapped.action_masks().nonzero()[0][1]  # allowed
            step = env.step(action)
            np.testing.assert_equal(step, other.step(action))
            if step[2]:  # a partner may end an episode early
                break


def test_registration_is_idempotent():
    before = dict(gym.registry)
    textgym.registration.register_envs()
    assert gym.registry == before


def test_layout_reward_and_info():
    env = make(checksum)
    obs, info = env.reset(options={"prompt": "ab"})
    assert obs.tolist() == [5, 0, 1, 5, 5, 5, 5, 5, 5] and obs.dtype == np.int64 and info == {"prompt_id": 2}
    obs, reward, terminated, truncated, info = env.step(3)
    assert obs.tolist() == [5, 0, 1, 3, 5, 5, 5, 5, 5]
    assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    obs, reward, terminated, truncated, info = env.step(4)
    expected = len("ab") + ord("d") / 100 + 3 + 4
    assert obs.tolist() == [5, 0, 1, 3, 4, 5, 5, 5, 5]
    assert reward == pytest.approx(expected) and terminated and not truncated
    assert info == {"checksum": reward, "eos": True, "prompt_id": 2}
    assert env.unwrapped.decode(obs) == "abd"


def test_the_length_limit_terminates():
    env = make()
    env.reset()
    steps = [env.step(0) for _ in range(6)]
    assert [s[2] for s in steps] == [False] * 5 + [True] and not any(s[3] for s in steps)
    assert steps[-1][1] == 6.0 and steps[-1][4]["eos"] is False


def test_observations_are_copies():
    env = make()
    first, _ = env.reset(options={"prompt": "a"})
    kept = first.copy()
    second = env.step(1)[0]
    assert np.array_equal(first, kept)
    second[:] = 0
    assert env.step(2)[0].tolist()[:3] == [5, 5, 0]


def test_an_empty_prompt_is_bos_alone():
    assert make().reset(options={"prompt": ""})[0].tolist() == [5, 5, 4, 5, 5, 5, 5, 5, 5]


def test_prompt_ids_pin_like_text_and_options_are_not_changed():
    env, options = make(), {"prompt_ids": np.array([5, 0, 1])}
    kept = copy.deepcopy(options)
    obs, info = env.reset(options=options)
    assert np.array_equal(options["prompt_ids"], kept["prompt_ids"]) and set(options) == {"prompt_ids"}
    other, other_info = env.reset(options={"prompt": "ab"})
    assert np.array_equal(obs, other) and info == other_info
    assert env.reset(options={"prompt": "dd"})[1] == {"prompt_id": 4}  # not in the source: appended
    assert env.reset(options={"prompt": "dd"})[1] == {"prompt_id": 4}


def test_seeds_reproduce_and_reach_every_prompt():
    def drawn(seed):
        env = make()
        return [env.reset(seed=seed if i == 0 else None)[1]["prompt_id"] for i in range(40)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert set(drawn(0)) == {0, 1, 2, 3}


def test_masks_and_restrictions():
    env = make(min_new_tokens=2, banned_tokens=[0], allowed_tokens=[0, 1, 2, 4])
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [0, 1, 1, 0, 0] and info["action_mask"].dtype == np.int8
    assert env.unwrapped.action_masks().tolist() == [False, True, True, False, False]
    for forbidden in (0, 3, 4):
        with pytest.raises(InvalidAction, match=f"token {forbidden} is forbidden after 0 tokens"):
            env.step(forbidden)
    env.step(1)
    assert env.step(2)[4]["action_mask"].tolist() == [0, 1, 1, 0, 1]
    assert env.step(4)[2]
    assert "action_mask" not in make().reset()[1]


@pytest.mark.parametrize("action", [5, -1, 1.0, "a", None, np.array([1, 2])])
def test_bad_actions(action):
    env = make()
    env.reset()
    with pytest.raises(InvalidAction, match="token"):
        env.unwrapped.step(action)


def test_steps_outside_an_episode():
    env = make()
    with pytest.raises(ResetNeeded):
        env.unwrapped.step(0)
    env.reset()
    env.step(4)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"promt": "a"}, "unknown reset option 'promt'"),
        ({"prompt": "a", "prompt_ids": [0]}, "by text or by ids"),
        ({"prompt": "abca"}, "'abca', has 4 tokens, more than max_prompt_tokens=3"),
        ({"prompt": "x"}, "cannot encode 'x'"),
        ({"prompt": 3}, "a prompt is a text"),
        ({"prompt_ids": np.array([7])}, "prompt_ids run from 0 to 5"),
        ({"prompt_ids": np.array([0.5])}, "must be integers"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make().reset(options=options)


def test_truncate_prompts_keeps_the_last_tokens():
    assert make(truncate_prompts=True).reset(options={"prompt": "abcd"})[0].tolist()[:3] == [1, 2, 3]


def test_a_tokenizer_without_eos_or_bos():
    from textgym.tokenizers import Tokenizer, character_tokenizer

    bare = Tokenizer(character_tokenizer("abcd").backend)
    with pytest.raises(ValueError, match="no EOS token; name the ids .* with eos_token_ids"):
        make(tokenizer=bare)
    with pytest.raises(ValueError, match="empty prompt, and the tokenizer has no BOS"):
        make(tokenizer=bare, eos_token_ids=[3])
    env = make(tokenizer=bare, eos_token_ids=[2, 3], prompts=["a"])
    env.reset()
    assert env.step(2)[2]


def test_reserved_scorer_names():
    with pytest.raises(ValueError, match="cannot be named 'eos'"):
        make({"name": "keyword", "words": "a", "component_name": "eos"})


def test_ansi_rendering():
    env = make(render_mode="ansi")
    env.reset(options={"prompt": "ab"})
    env.step(3)
    assert env.render() == "[ab]d"
    env.step(4)
    assert env.render() == "[ab]d  (reward +2.000)"


def test_human_rendering_writes_as_it_goes(capsys):
    env = make(render_mode="human")
    env.reset(options={"prompt": "ab"})
    env.step(3)
    assert capsys.readouterr().out == "abd"
    env.step(4)
    assert capsys.readouterr().out.strip() == "(reward +2.000)"


def test_record_episode_statistics_and_numpy_to_torch():
    from gymnasium.wrappers import NumpyToTorch, RecordEpisodeStatistics

    env = NumpyToTorch(RecordEpisodeStatistics(make()))
    obs, _ = env.reset(seed=0)
    assert obs.dtype.is_floating_point is False and obs.shape == (9,)
    import torch

    env.step(torch.tensor(1))
    _, _, terminated, _, info = env.step(torch.tensor(4))
    assert terminated and float(info["episode"]["r"]) == 2.0 and int(info["episode"]["l"]) == 2
