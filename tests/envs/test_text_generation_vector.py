"""The vector env against the single one and Gymnasium's own, all autoreset modes, groups, seeds and wrappers."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NumpyToTorch, RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CHARACTERS, ENV_IDS, checksum, count_tokens
from textgym.scorers import Scorer

T, PAD = CHARACTERS["max_new_tokens"], 5


class PaysPerToken(Scorer):
    """Pays the newest token's id, and half of it again for the row's length so far."""

    name, per_token = "newest", True

    def score(self, generations):
        last = [ids[-1] for ids in generations.completion_ids]
        return [token + 0.5 * n for token, n in zip(last, generations.lengths, strict=True)]


def make(n=4, scorer=count_tokens, **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=n, **{**CHARACTERS, "scorer": scorer, **kwargs})


def play_single(prompt, actions, scorer):
    """One episode of the single env: observations, rewards and the last info."""
    env = gym.make("TextGen-v0", **{**CHARACTERS, "scorer": scorer}).unwrapped
    observations, rewards = [env.reset(options={"prompt": prompt})[0]], []
    for action in actions:
        obs, reward, terminated, _, info = env.step(action)
        observations.append(obs)
        rewards.append(reward)
        if terminated:
            return observations, rewards, info
    raise AssertionError("the episode did not end")


prompts = st.text("abcd", max_size=3)
episodes = st.lists(st.integers(0, 4), min_size=T, max_size=T)  # 4 ends it; the limit does otherwise


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([checksum, PaysPerToken()]), st.sampled_from(["SameStep", "Disabled"]))
def test_single_and_vector_agree_step_by_step(data, scorer, mode):
    """At least 150 x 2 rows x 4 = 1,200 episodes, ragged, and up to 4 times as many."""
    n = data.draw(st.integers(2, 6))
    pins = data.draw(st.lists(prompts, min_size=n, max_size=n))
    plans = data.draw(st.lists(st.lists(episodes, min_size=4, max_size=4), min_size=n, max_size=n))
    expected = [[play_single(p, plan, scorer) for plan in plans[i]] for i, p in enumerate(pins)]
    env = make(n, scorer, autoreset_mode=mode)
    obs, _ = env.reset(options={"prompts": pins})
    episode, step = np.zeros(n, int), np.zeros(n, int)
    name = "checksum" if scorer is checksum else "newest"
    while (episode < 4).all():  # until the fastest row has played all of its plans
        for i in range(n):
            assert np.array_equal(obs[i], expected[i][episode[i]][0][step[i]])
        waiting = np.zeros(n, bool)
        while True:
            actions = np.array([0 if waiting[i] else plans[i][episode[i]][step[i]] for i in range(n)])
            obs, rewards, ended, truncated, info = env.step(actions)
            assert not truncated.any()
            for i in np.flatnonzero(waiting):
                assert rewards[i] == 0 and not ended[i]
            for i in np.flatnonzero(~waiting):
                observations, row_rewards, last_info = expected[i][episode[i]]
                assert rewards[i] == row_rewards[step[i]]
                step[i] += 1
                assert ended[i] == (step[i] == len(row_rewards))
                final = info.get("final_info", info)
                if ended[i]:
                    last = info["final_obs"][i] if mode == "SameStep" else obs[i]
                    assert np.array_equal(last, observations[-1])
                    for key in (name, "eos"):
                        assert final[f"_{key}"][i] and final[key][i] == pytest.approx(last_info[key])
                    episode[i], step[i] = episode[i] + 1, 0
                elif ended.any():
                    assert not final[f"_{name}"][i] and final[name][i] == 0
                    if mode == "SameStep":
                        assert (info["final_obs"][i] == PAD).all()
            waiting |= ended & (mode == "Disabled")
            if mode == "SameStep" or waiting.sum() > n // 2:
                break
        if waiting.any() and (episode < 4).all():
            obs, _ = env.reset(options={"reset_mask": waiting})  # the pins hold
    assert episode.max() == 4


@pytest.mark.parametrize("scorer", [checksum, PaysPerToken()], ids=["at the end", "per token"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_it_is_gymnasiums_own_vector_env(mode, scorer):
    """Thousands of steps beside `SyncVectorEnv`: the same arrays, and the same info with the same masks."""
    task = {**CHARACTERS, "scorer": scorer, "prompts": ["ab"]}
    ours = gym.make_vec("TextGen-v0", num_envs=5, autoreset_mode=mode, **task)
    theirs = SyncVectorEnv([lambda: gym.make("TextGen-v0", **task).unwrapped] * 5, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is ours.autoreset_mode
    rng, dead, ends = np.random.default_rng(0), np.zeros(5, bool), 0
    seen, expected = ours.reset(seed=0), theirs.reset(seed=0)
    for _ in range(2000):
        np.testing.assert_equal(seen[0], expected[0])
        if mode is AutoresetMode.DISABLED and dead.any():
            seen, expected = ours.reset(options={"reset_mask": dead}), theirs.reset(options={"reset_mask": dead})
            np.testing.assert_equal(seen[0], expected[0])
        actions = rng.integers(0, 5, 5)
        seen, expected = ours.step(actions), theirs.step(actions)
        np.testing.assert_equal(seen[1:4], expected[1:4])
        dead = seen[2]
        ends += dead.sum()
        told, words = (info.get("final_info", info) for info in (seen[4], expected[4]))
        for row in range(5):
            assert row_of(told, row) == pytest.approx(row_of(words, row))
        assert (
            ("final_obs" in seen[4]) == ("final_obs" in expected[4]) == (mode is AutoresetMode.SAME_STEP and dead.any())
        )
        for row in np.flatnonzero(dead) if "final_obs" in seen[4] else ():
            np.testing.assert_equal(seen[4]["final_obs"][row], expected[4]["final_obs"][row])
    assert ends > 2000


def test_calls_of_single_envs_are_those_of_gymnasiums_vector_env():
    task = {**CHARACTERS, "prompts": ["ab"], "min_new_tokens": 2, "render_mode": "ansi"}
    ours = gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode="Disabled", **task)
    theirs = SyncVectorEnv([lambda: gym.make("TextGen-v0", **task).unwrapped] * 3, autoreset_mode="Disabled")
    for env in (ours, theirs):
        env.reset(seed=0)
        env.reset(options={"reset_mask": np.array([True, False, True])})
    for actions in ([0, 1, 2], [1, 1, 1], [4, 0, 4]):
        ours.step(np.array(actions)), theirs.step(np.array(actions))
        for name, arguments in (("action_masks", ()), ("encode", ("abc",)), ("decode", ([0, 1, 5],)), ("render", ())):
            np.testing.assert_equal(ours.call(name, *arguments), theirs.call(name, *arguments))
    for name in ("mdp", "render_mode", "observation_space", "action_space"):
        assert ours.get_attr(name) == theirs.get_attr(name), name
    with pytest.raises(AttributeError, match="no_such"):
        ours.call("no_such")
    with pytest.raises(ValueError, match="use step"):
        ours.call("step", 0)


def row_of(info, row):
    """What info tells of one row."""
    return {name: info[name][row] for name in info if not name.startswith(("_", "final_")) and info[f"_{name}"][row]}


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])
def test_every_id_runs_as_a_vector_env(env_id, mode):
    env = gym.make_vec(env_id, num_envs=3, autoreset_mode=mode, scorer=count_tokens)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space and obs.dtype == np.int64
    assert env.metadata["autoreset_mode"] is AutoresetMode(mode)
    env.action_space.seed(0)
    assert all(env.step(env.action_space.sample())[0] in env.observation_space for _ in range(3))


def test_an_ended_row_is_inert_until_named():
    env = make(3, autoreset_mode="Disabled")
    env.reset(options={"prompts": ["a", "b", "c"]})
    obs, rewards, ended, _, info = env.step(np.array([4, 0, 0]))
    assert ended.tolist() == [True, False, False] and rewards.tolist() == [1.0, 0.0, 0.0]
    assert info["count_tokens"].tolist() == [1.0, 0.0, 0.0] and info["_eos"].tolist() == [True, False, False]
    again, rewards, ended, _, info = env.step(np.array([99, 0, 0]))  # the action of an inert row is not looked at
    assert np.array_equal(again[0], obs[0]) and not ended.any() and rewards.tolist() == [0, 0, 0] and info == {}
    mask = np.array([True, False, False])
    options = {"reset_mask": mask}
    fresh, info = env.reset(options=options)
    assert options == {"reset_mask": mask} and mask.tolist() == [True, False, False]
    assert fresh[0].tolist() == [5, 5, 0] + [5] * 6 and np.array_equal(fresh[1:], again[1:])
    assert info["_prompt_id"].tolist() == [True, False, False]
    env.step(np.array([4, 4, 4]))
    with pytest.raises(ResetNeeded, match="every row has ended"):
        env.step(np.array([0, 0, 0]))
    assert env.reset()[1]["_prompt_id"].all()


def test_a_pin_holds_until_the_next_full_reset():
    env = make(2)
    env.reset(seed=0, options={"prompt_ids": np.array([[0, 1, 5], [5, 5, 3]])})
    for _ in range(3):
        obs, *_ = env.step(np.array([4, 4]))
        assert obs[:, :3].tolist() == [[5, 0, 1], [5, 5, 3]]
    drawn = [env.reset()[1]["prompt_id"].tolist() for _ in range(10)]
    assert len({tuple(d) for d in drawn}) > 1


def play(env, seed, steps=40):
    """Everything that happens under random actions that do not depend on the env."""
    actions = np.random.default_rng(7).integers(0, 5, (steps, env.num_envs))
    log = [env.reset(seed=seed)[0].tolist()]
    for action in actions:
        obs, rewards, ended, _, _ = env.step(action)
        log.append([obs.tolist(), rewards.tolist(), ended.tolist()])
    return log


def test_seeds_reproduce():
    assert play(make(num_generations=2), 0) == play(make(num_generations=2), 0) != play(make(num_generations=2), 1)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_groups_share_their_nth_prompt(k):
    env = make(8, num_generations=k, prompts=[a + b for a in "abcd" for b in "abcd"])
    rng = np.random.default_rng(0)
    seen = [[i] for i in env.reset(seed=0)[1]["prompt_id"].tolist()]
    for _ in range(200):
        _, _, ended, _, info = env.step(rng.integers(0, 5, 8))
        for i in np.flatnonzero(ended):
            seen[i].append(int(info["prompt_id"][i]))
    for group in range(0, 8, k):
        shortest = min(len(row) for row in seen[group : group + k])
        assert shortest > 20
        assert all(row[:shortest] == seen[group][:shortest] for row in seen[group : group + k])
    assert len({tuple(row[:20]) for row in seen}) == 8 // k


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_record_episode_statistics_counts_every_episode_once(mode):
    if mode == "SameStep" and tuple(map(int, gym.__version__.split(".")[:2])) < (1, 4):
        pytest.skip("they are wrong before gymnasium 1.4, as tests/recipes/in_rllib_ppo.py shows")
    env = RecordEpisodeStatistics(make(4, autoreset_mode=mode))
    env.reset(seed=0)
    rng, finished, lengths = np.random.default_rng(0), 0, []
    for _ in range(100):
        actions = rng.integers(0, 5, 4)
        _, rewards, ended, _, info = env.step(actions)
        finished += int(ended.sum())
        lengths += rewards[ended].tolist()  # count_tokens pays the length
        if ended.any():
            assert np.array_equal(info["episode"]["l"][ended], rewards[ended])
            if mode == "Disabled" and rng.random() < 0.5:
                env.reset(options={"reset_mask": ended.copy()})
        if mode == "Disabled" and not env.unwrapped._live.any():
            env.reset(options={"reset_mask": np.ones(4, bool)})
    assert env.episode_count == finished > 10
    assert list(env.length_queue) == lengths[-100:]


@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])
def test_numpy_to_torch(mode):
    import torch

    env = NumpyToTorch(make(3, autoreset_mode=mode))
    obs, info = env.reset(options={"prompt_ids": np.zeros((3, 1), np.int64)})
    assert obs.dtype == torch.int64 and info["prompt_id"].shape == (3,)
    obs, rewards, ended, _, info = env.step(torch.tensor([4, 0, 1]))
    assert rewards.tolist() == [1, 0, 0] and ended.tolist() == [True, False, False]
    final = info["final_info"] if mode == "SameStep" else info
    assert final["count_tokens"].tolist() == [1, 0, 0] and final["eos"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("env", "options"),
    [
        (make(2), {"prompts": ["a", f"{(c for c in 'ab')}"]}),
        (make(2), {"prompts": [[{"role": "user", "content": f"{(c for c in 'ab')}"}]] * 2}),
        (gym.make("TextGen-v0", **CHARACTERS), {"prompt": f"{(c for c in 'ab')}"}),
    ],
)
def test_the_name_of_a_generator_is_no_prompt(env, options):
    """As `NumpyToTorch` of gymnasium 1.4.0 makes of a text."""
    with pytest.raises(ValueError, match="the reset option 'prompts?' was a text, but a wrapper"):
        env.reset(options=options)


def test_observations_are_copies():
    env = make(2)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second = env.step(np.array([0, 1]))[0]
    assert np.array_equal(first, kept)
    second[:] = 0
    assert (env.step(np.array([1, 2]))[0][:, 5:] == PAD).all()


def test_masks_as_maskable_ppo_wants_them():
    env = make(2, min_new_tokens=1, banned_tokens=[0], autoreset_mode="Disabled")
    env.reset()
    assert env.unwrapped.action_masks().tolist() == [[False, True, True, True, False]] * 2
    env.step(np.array([1, 2]))
    assert env.unwrapped.action_masks().tolist() == [[False, True, True, True, True]] * 2
    with pytest.raises(InvalidAction, match="token 0 of row 1 is forbidden after 1 tokens"):
        env.step(np.array([1, 0]))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 5]), "token 5 of row 1 is outside"),
        (np.array([-1, 0]), "token -1 of row 0 is outside"),
        (np.array([0.0, 1.0]), "2 integer token ids"),
        (np.array([0]), "2 integer token ids"),
    ],
)
def test_bad_actions(actions, message):
    env = make(2)
    env.reset()
    with pytest.raises(InvalidAction, match=message):
        env.step(actions)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"autoreset_mode": "Never"}, "accepted are"),
        ({"num_generations": 3}, "must divide num_envs=4"),
        ({"render_mode": "human"}, "vector env accepts 'ansi'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(4, **kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a"}, "unknown reset option 'prompt'"),
        ({"prompts": ["a"]}, "one entry per row, 2"),
        ({"prompts": "ab"}, "one entry per row, 2"),
        ({"reset_mask": [True, False]}, "numpy bool array"),
        ({"reset_mask": np.array([False, False])}, "with a True in it"),
        ({"episode_of": [1, 0]}, "numpy array of 2 integers"),
        ({"episode_of": np.array([0.0, 1.0])}, "numpy array of 2 integers"),
        ({"episode_of": np.array([0, 0])}, "different rows from 0 to 1"),
        ({"episode_of": np.array([0, 2])}, "different rows from 0 to 1"),
        ({"episode_of": np.array([-1, 0])}, "different rows from 0 to 1"),
    ],
)
def test_bad_options(options, message):
    env = make(2)
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


def test_a_row_can_play_the_next_episode_of_another():
    prompts = ["a", "b", "ab", "ba", "cad", "d"]
    own, env = (make(4, prompts=prompts, num_generations=2, autoreset_mode="Disabled") for _ in range(2))
    own.reset(seed=3)
    env.reset(seed=3)
    mask, owners = np.array([True, False, False, True]), np.array([2, -1, -1, 0])
    expected, _ = own.reset(options={"reset_mask": np.ones(4, bool)})  # everyone's second prompt
    rows, info = env.reset(options={"reset_mask": mask, "episode_of": owners})
    assert (rows[[0, 3]] == expected[[2, 0]]).all() and info["_prompt_id"].tolist() == mask.tolist()
    rest, _ = env.reset(options={"reset_mask": np.array([True, True, True, True])})
    assert (rest[[1, 3]] == expected[[1, 3]]).all()  # whose second is still to come, while 0 and 2 are at their third
    pinned, _ = env.reset(options={"prompts": ["a", "b", "ab", "ba"], "episode_of": np.array([3, 2, 1, 0])})
    assert [env.decode(row) for row in pinned] == ["ba", "ab", "b", "a"]


def test_step_before_reset_and_rendering():
    env = make(2, render_mode="ansi")
    with pytest.raises(ResetNeeded):
        env.step(np.array([0, 0]))
    env.reset(options={"prompts": ["a", "b"]})
    env.step(np.array([1, 2]))
    assert env.render() == ("[a]b", "[b]c")
