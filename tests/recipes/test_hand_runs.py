"""The hand runs that recorded data are compared with notice every kind of fault, and nothing in right data."""

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401 (registers the ids)
from tests.helpers.hand_runs import hand_run

ENV_ID = "TextGenChars-v0"


@pytest.fixture
def data(rng):
    """300 steps of 4 rows of the native env in SameStep, with the last observation of every episode."""
    env, steps = gym.make_vec(ENV_ID, num_envs=4), []
    rows, _ = env.reset(seed=0)
    for _ in range(300):
        actions = rng.integers(0, 5, 4)
        after, rewards, ends, _, info = env.step(actions)
        last = np.where(ends[:, None], info["final_obs"], after) if ends.any() else after
        steps.append((rows, actions, rewards, ends, last))
        rows = after
    return [np.stack(part) for part in zip(*steps, strict=True)]


def test_right_data_have_no_faults(data):
    run = hand_run(ENV_ID, *data)
    assert not run.wrong and run.steps == 1200 and len(run.episodes) == data[3].sum()
    assert run.has(run.episodes[::-1]) and not run.has([(0.5, 1), *run.episodes[1:]])


@pytest.mark.parametrize(("part", "fault"), [(2, "reward"), (3, "end"), (4, "next observation")])
def test_one_wrong_entry_is_found(data, part, fault):
    data[part][150, 2] = 1 - data[part][150, 2]
    assert hand_run(ENV_ID, *data).wrong == {fault: 1}


def test_a_wrong_token_in_a_row_is_found(data):
    step, row = np.argwhere(~data[3][100:200])[0] + (101, 0)  # a row that goes on
    data[0][step, row, 1] = (data[0][step, row, 1] + 1) % 4
    assert set(hand_run(ENV_ID, *data[:4]).wrong) == {"next row", "episode that begins"}  # the hand run goes on from it


def test_a_lost_first_step_is_found(data):
    """Without the first step of an episode, as RLlib drops it."""
    step = int(np.flatnonzero(data[3][:-3, 0] & ~data[3][1:-2, 0])[0]) + 1
    wrong = hand_run(ENV_ID, *(np.delete(part[:, :1], step, 0) for part in data)).wrong
    assert wrong == {"episode that begins": 1}


def test_a_dead_step_is_found(data):
    step = int(np.flatnonzero(data[3][:-3, 0])[0])
    for part, value in zip(data, (data[4][step], 0, 0.0, False, data[0][step + 1]), strict=True):
        part[:] = np.insert(part, step + 1, value, 0)[:-1]
    assert hand_run(ENV_ID, *(part[:, :1] for part in data)).wrong == {"dead step": 1}
