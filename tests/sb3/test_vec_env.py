"""TextVecEnv in Disabled mode: every row's episodes are played to the end, none lost, none twice."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.sb3 import TextVecEnv
from textgym.sb3.collection import collect
from textgym.sb3.policy import TokenPolicy

N, K, EPISODES = 6, 2, 3
PROMPTS = ["a", "b", "ab", "ba", "cad", "d", "da", "ccc"]


KWARGS = {**CHARACTERS, "prompts": PROMPTS, "scorer": count_tokens, "num_generations": K}


def text_env(restart_together=1, episodes=EPISODES, **kwargs):
    env = TextVecEnv(gym.make_vec("TextGen-v0", num_envs=N, autoreset_mode="Disabled", **{**KWARGS, **kwargs}))
    env.plan(episodes, restart_together)
    return env


def schedule(seed):
    """The prompts of each group of rows, round by round, as numpy's generator draws them: (rounds, groups)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(len(PROMPTS), size=N // K) for _ in range(EPISODES)])


def run(env, seed=5, lengths=0):
    """Play until nothing is live.

    Gives each row's episodes by number, as (first observation, actions, rewards, info), and of each step how many rows
    were idle, whether others were live, how many episodes were left to begin, and which rows began one.
    """
    rng = np.random.default_rng(lengths)
    env.seed(seed)
    obs, finished, waits, begun = env.reset(), [{} for _ in range(N)], [], N
    current, live = [(obs[i].copy(), [], []) for i in range(N)], np.ones(N, bool)
    for _ in range(200):
        actions = rng.choice(5, N, p=[0.1] * 4 + [0.6])
        playing = env.playing.copy()
        obs, rewards, dones, infos = env.step(actions)
        assert (rewards[~live] == 0).all() and not dones[~live].any()  # a row that waits is inert
        for i in np.flatnonzero(live):
            current[i][1].append(int(actions[i]))
            current[i][2].append(float(rewards[i]))
            if dones[i]:
                number, row = playing[:, i]
                assert number not in finished[row]
                finished[row][number] = (*current[i], infos[i])
        live &= ~dones
        fresh = ~live & ~env.venv.unwrapped.mdp.ended(obs)
        for i in np.flatnonzero(fresh):
            current[i] = obs[i].copy(), [], []
        waits.append((int((~live).sum()), bool(live.any()), N * EPISODES - begun, fresh.copy()))
        begun += fresh.sum()
        live |= fresh
        if not live.any():
            return finished, waits
    raise AssertionError("the env never stops")


@pytest.mark.parametrize("restart_together", [1, 2, 4, N])
@pytest.mark.parametrize("lengths", range(4))
def test_every_row_has_its_episodes_played_completely_with_the_prompts_of_the_schedule(restart_together, lengths):
    env = text_env(restart_together)
    finished, waits = run(env, lengths=lengths)
    assert [sorted(episodes) for episodes in finished] == [list(range(EPISODES))] * N
    expected = schedule(5)
    for i, episodes in enumerate(finished):
        for n, (first, actions, rewards, info) in episodes.items():
            assert info["prompt_id"] == expected[n, i // K]
            prompt = [CHARACTERS["tokenizer"]["alphabet"].index(c) for c in PROMPTS[expected[n, i // K]]]
            assert first.tolist() == [5] * (3 - len(prompt)) + prompt + [5] * 6
            assert info["terminal_observation"].tolist() == first.tolist()[:3] + actions + [5] * (6 - len(actions))
            assert actions[-1] == 4 or len(actions) == 6 and 4 not in actions[:-1]
            assert rewards == [0.0] * (len(actions) - 1) + [len(actions)] and info["eos"] == (actions[-1] == 4)
    held = 0
    for idle, others_live, left, fresh in waits:
        can = min(idle, left)
        assert fresh.sum() == can if restart_together == 1 else fresh.sum() <= can
        assert fresh.any() or others_live or not can
        assert not fresh.any() or fresh.sum() >= restart_together or not others_live  # all of them together
        held += can > fresh.sum()
    assert held == 0 if restart_together == 1 else restart_together == 2 or held > 0


def test_idle_rows_take_over_what_is_left_of_others():
    env = text_env(episodes=2)
    env.seed(5)
    env.reset()
    begun = []
    for ends in ([0, 1], [0, 1], [0, 1], [0, 5], [], list(range(N))):  # token 4 ends a row's text
        before = env.playing.copy()
        env.step(np.where(np.isin(np.arange(N), ends), 4, 0))
        begun.append([(i, *env.playing[:, i].tolist()) for i in range(N) if (env.playing != before)[:, i].any()])
    own, others = [(0, 1, 0), (1, 1, 1)], [(0, 1, 2), (1, 1, 3)]
    assert begun == [own, others, [(0, 1, 4), (1, 1, 5)], [], [], []]
    assert (env.venv.unwrapped._prompt_ids[[0, 1]] == schedule(5)[1, [4 // K, 5 // K]]).all()


@pytest.mark.parametrize("period", [2, 3])
def test_rows_of_one_actor_take_over_what_is_left_of_its_rows_alone(period):
    env, taken = text_env(), 0
    env.plan(EPISODES, period=period)
    env.seed(0)
    env.reset()
    for _ in range(40):
        env.step(np.where(np.arange(N) == 0, 4, np.random.default_rng(1).integers(0, 4, N)))  # row 0 ends at once
        assert ((env.playing[1] - np.arange(N)) % period == 0).all()
        taken += int((env.playing[1] != np.arange(N)).sum())
        if env.venv.unwrapped._num_live == 0:
            break
    assert taken and (env._begun == EPISODES).all()


def test_a_reset_begins_anew_in_the_middle_of_everything():
    env = text_env()
    env.seed(5)
    env.reset()
    for _ in range(4):
        env.step(np.array([4, 0, 0, 4, 0, 1]))
    env.plan(EPISODES)
    assert [sorted(episodes) for episodes in run(env)[0]] == [list(range(EPISODES))] * N


def test_a_plan_is_for_one_reset_and_without_one_rows_begin_again_by_themselves():
    env = text_env(episodes=1)
    env.reset()  # the plan was for this one
    without = run_steps(env, 40)
    same_step = TextVecEnv(gym.make_vec("TextGen-v0", num_envs=N, autoreset_mode="SameStep", **KWARGS))
    assert [len(episodes) for episodes in without] == [len(episodes) for episodes in run_steps(same_step, 40)]
    assert min(map(len, without)) >= 6


def run_steps(env, steps):
    """The rewards of each row's episodes, as far as they end within so many steps from a reset."""
    rng, rewards_of = np.random.default_rng(0), [[] for _ in range(N)]
    env.seed(5)
    env.reset()
    for _ in range(steps):
        _, rewards, dones, infos = env.step(rng.choice(5, N, p=[0.1] * 4 + [0.6]))
        for i in np.flatnonzero(dones):
            assert env.venv.unwrapped.mdp.ended(infos[i]["terminal_observation"][None]).all()
            rewards_of[i].append(rewards[i])
    return rewards_of


@pytest.mark.parametrize("mode", ["Disabled", "SameStep"])
def test_collecting_gives_the_same_number_of_complete_episodes_of_every_rows_prompts(mode):
    kwargs = {**CHARACTERS, "prompts": PROMPTS, "scorer": count_tokens, "num_generations": K}
    env = TextVecEnv(gym.make_vec("TextGen-v0", num_envs=N, autoreset_mode=mode, **kwargs))
    mdp = env.venv.unwrapped.mdp
    policy = TokenPolicy(mdp.observation_space, mdp.action_space, lambda _: 0.0, mdp=mdp, model=small_llama())
    steps, live_steps = [], []

    def on_step(live, dones, infos):
        assert torch.is_grad_enabled()  # a callback may train something of its own
        steps.append(dones & live)
        live_steps.append(int(live.sum()))
        return True

    env.seed(5)
    fields = collect(env, policy.token_model, EPISODES, env.get_attr("scorer")[0].component_names, on_step)
    assert fields is not None and mdp.ended(fields["rows"]).all()
    assert np.array_equal(fields["prompt_ids"], schedule(5).repeat(K, axis=1).reshape(-1))
    lengths = mdp.completion_lengths(fields["rows"])
    assert np.array_equal(fields["rewards"].sum(-1), lengths) and np.array_equal(fields["components"][:, 0], lengths)
    assert sum(live_steps) == lengths.sum() and np.sum(steps) == N * EPISODES
    written = np.arange(6) < lengths[:, None]
    assert ((fields["sampled_log_probs"] < 0) == written).all()
    assert collect(env, policy.token_model, EPISODES, ("count_tokens",), lambda *args: False) is None
