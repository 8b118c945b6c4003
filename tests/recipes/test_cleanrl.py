"""The recipe in the manner of CleanRL, which needs nothing but TextGym: its data, what it learns, and what is wrong."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from scripts.recipes.cleanrl_ppo import Args, advantages_of, make_agent, make_envs, rollout, train
from tests.helpers.hand_runs import hand_run

ARGS = Args(total_timesteps=10_000)


def rollouts(envs, number=4):
    """Some rollouts as one, and the episodes that the library reports."""
    torch.manual_seed(0)
    agent, (obs, _), batches, reported = make_agent(ARGS, envs), envs.reset(seed=0), [], []
    for _ in range(number):
        batch, obs, episodes = rollout(envs, agent, obs, ARGS.num_steps)
        batches.append(batch)
        reported += episodes
    names = "obs", "actions", "rewards", "dones"
    return [torch.cat([batch[name] for batch in batches]).numpy() for name in names], reported


@pytest.mark.skipif(
    tuple(map(int, gym.__version__.split(".")[:2])) < (1, 4), reason="gymnasium's statistics are wrong in SameStep mode"
)
def test_every_step_is_a_token_of_an_episode():
    data, reported = rollouts(make_envs(ARGS))
    run = hand_run(ARGS.env_id, *data)
    assert run.steps == 4 * 16 * 64 and not run.wrong
    assert len(run.episodes) > 1000 and run.has(reported)


def test_in_the_default_mode_of_gymnasiums_vector_env_the_loop_trains_on_dead_steps():
    envs = RecordEpisodeStatistics(gym.make_vec(ARGS.env_id, num_envs=64, vectorization_mode="sync"))
    data, reported = rollouts(envs, number=2)
    run = hand_run(ARGS.env_id, *data)
    assert set(run.wrong) == {"dead step"} and 0.1 < run.wrong["dead step"] / run.steps < 0.3
    assert run.has(reported)


def test_the_loop_over_final_info_finds_no_episode():
    """`for info in infos["final_info"]` was for a list of dicts; a dict is walked by key."""
    envs, found, ended = make_envs(ARGS), 0, 0
    envs.reset(seed=0)
    for _ in range(20):
        *_, infos = envs.step(envs.action_space.sample())
        found += sum(1 for info in infos.get("final_info", ()) if info and "episode" in info)
        ended += infos.get("_episode", np.zeros(1)).sum()
    assert found == 0 < ended


def test_advantages_are_sums_of_rewards_to_come():
    """At lambda = 1 and gamma = 1: the return of the rest of the episode minus the value, by hand."""
    batch = {
        "rewards": torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]),
        "dones": torch.tensor([[False, True], [True, False], [False, False]]),
        "values": torch.tensor([[0.5, 0.25], [1.0, 0.0], [3.0, 1.0]]),
    }
    expected = [[2 - 0.5, 1 - 0.25], [2 - 1.0, 5 - 0.0], [4 - 3.0, 5 - 1.0]]
    assert advantages_of(batch, torch.tensor([4.0, 5.0]), 1.0).tolist() == expected


def test_it_learns():
    means = train(ARGS)
    assert np.mean(means[:2]) < 0.25 and np.mean(means[-2:]) > 0.7
