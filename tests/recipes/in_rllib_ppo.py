"""RLlib's data beside hand runs; run by test_in_environments.py, where ray is installed, with gymnasium 1.2.2."""

import gymnasium as gym
import numpy as np
import pytest
import ray
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from scripts.recipes.rllib_ppo import ENV_ID, make_config, make_masked_config, train
from tests.helpers.hand_runs import hand_run


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def recorded(config, episodes=1200):
    """Episodes of random tokens, one after the other as `hand_run` wants them, and (return, length) of each."""
    runner = config.build_algo().env_runner
    sampled = [episode.to_numpy() for episode in runner.sample(num_episodes=episodes, random_actions=True)]
    rows = np.concatenate([episode.get_observations()[:-1] for episode in sampled])
    after = np.concatenate([episode.get_observations()[1:] for episode in sampled])
    actions = np.concatenate([episode.get_actions() for episode in sampled])
    rewards = np.concatenate([episode.get_rewards() for episode in sampled])
    ends = np.concatenate([np.arange(len(e)) == len(e) - 1 for e in sampled if e.is_terminated])
    data = [part[:, None] for part in (rows, actions, rewards, ends, after)]
    return data, [(episode.get_return(), len(episode)) for episode in sampled]


def with_entry_point(**env_kwargs):
    """RLlib over the native vector env."""
    return make_config(**env_kwargs).env_runners(gym_env_vectorize_mode="vector_entry_point")


@pytest.mark.parametrize("config", [make_config, lambda: with_entry_point(autoreset_mode="NextStep")])
def test_every_transition_is_the_envs(config):
    data, reported = recorded(config())
    run = hand_run(ENV_ID, *data)
    assert data[0].dtype == data[1].dtype == np.int64
    assert len(run.episodes) >= 1200 and run.steps > 3000 and not run.wrong and run.has(reported)


def test_the_native_env_in_its_own_mode_loses_episodes():
    """RLlib takes every vector env for one in NextStep: the step after an end is skipped as its reset."""
    data, reported = recorded(with_entry_point())
    wrong = hand_run(ENV_ID, *data).wrong
    assert min(length for _, length in reported) == 1 and wrong["next observation"] >= 1200
    assert wrong["episode that begins"] > 500


def test_forbidden_tokens_are_never_chosen():
    algorithm = make_masked_config(min_new_tokens=3).build_algo()
    lengths = [len(episode) for episode in algorithm.env_runner.sample(num_episodes=300)]
    assert min(lengths) == 4  # three tokens and EOS


def test_without_masks_a_forbidden_token_is_an_error():
    with pytest.raises(RuntimeError):
        train(make_config(min_new_tokens=3).build_algo(), 1)


def test_statistics_of_vector_envs_are_wrong_under_same_step():
    """Before gymnasium 1.4.0: lengths are one short from the second episode on, and the other modes are right."""
    lengths = {}
    for mode in ("SameStep", "NextStep"):
        env = RecordEpisodeStatistics(gym.make_vec(ENV_ID, num_envs=1, autoreset_mode=mode))
        env.reset(seed=0)
        infos = [env.step(np.array([0]))[-1] for _ in range(30)]
        lengths[mode] = [int(info["episode"]["l"][0]) for info in infos if "episode" in info]
    assert lengths == {"SameStep": [8, 7, 7], "NextStep": [8, 8, 8]}


@pytest.mark.parametrize("config", [make_config, lambda: make_masked_config(min_new_tokens=3)])
def test_it_learns(config):
    means = train(config().build_algo(), 16)
    print(means)
    assert means[0] < 0.2 and means[-1] > 0.5
