"""A Minari data set beside hand runs; run by test_in_environments.py, where minari is installed."""

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

from scripts.recipes.minari_offline import DATASET_ID, ENV_ID, evaluate, record, train
from tests.helpers.hand_runs import hand_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("data")))
        record()
        yield minari.load_dataset(DATASET_ID)


def test_every_transition_is_the_envs(dataset):
    episodes = list(dataset.iterate_episodes())
    rows, after = (
        np.concatenate([e.observations[part] for e in episodes])[:, None] for part in (np.s_[:-1], np.s_[1:])
    )
    actions, rewards, ends = (
        np.concatenate([getattr(e, name) for e in episodes])[:, None] for name in ("actions", "rewards", "terminations")
    )
    run = hand_run(ENV_ID, rows, actions, rewards, ends, after)
    assert rows.dtype == actions.dtype == np.int64 and dataset.total_steps == run.steps > 4000 and not run.wrong
    assert run.episodes == [(e.rewards.sum(), len(e)) for e in episodes] and len(episodes) == 1000


def test_infos_are_those_of_the_env(dataset):
    """Components stand at the last step, and defaults before."""
    for episode in dataset.iterate_episodes(range(50)):
        assert set(episode.infos) == {"prompt_id", "regex", "eos"}
        assert episode.infos["regex"][-1] == episode.rewards.sum() and not episode.infos["regex"][:-1].any()
        assert episode.infos["eos"][-1] == (episode.actions[-1] == 4) and not episode.infos["eos"][:-1].any()


def test_without_constant_info_infos_cannot_be_recorded():
    env = minari.DataCollector(gym.make(ENV_ID), record_infos=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="symmetric difference on key sets"):
        env.step(0)


def test_the_env_is_recovered(dataset):
    env = dataset.recover_environment()
    assert env.spec.id == ENV_ID and "ConstantInfo" in str(env)


def test_it_learns_without_the_env(dataset):
    torch.manual_seed(0)
    returns = [e.rewards.sum() for e in dataset.iterate_episodes()]
    policy = evaluate(dataset, train(dataset))
    assert policy > 5 * np.mean(returns) and policy > 0.9 * np.sort(returns)[-100:].mean()
