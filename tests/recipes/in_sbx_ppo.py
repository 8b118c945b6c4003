"""sbx's data beside hand runs; run by test_in_environments.py, where sbx is installed."""

import numpy as np
import pytest
import sbx
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from scripts.recipes.sbx_ppo import ENV_ID, make_agent, make_env
from tests.helpers.hand_runs import hand_run


class Record(BaseCallback):
    """Keeps every rollout, and what the monitor reports."""

    def _on_training_start(self):
        self.rollouts, self.reported = [], []

    def _on_step(self):
        self.reported += [(i["episode"]["r"], i["episode"]["l"]) for i in self.locals["infos"] if "episode" in i]
        return True

    def _on_rollout_end(self):
        buffer, ends = self.model.rollout_buffer, self.locals["dones"]
        ends = np.concatenate([buffer.episode_starts[1:], np.asarray(ends)[None]])
        self.rollouts.append([buffer.observations.copy(), buffer.actions[..., 0].copy(), buffer.rewards.copy(), ends])


@pytest.mark.parametrize("by_id", [False, True])
def test_every_transition_is_the_envs(by_id):
    record, rows = Record(), 1 if by_id else 32
    agent = sbx.PPO("MlpPolicy", ENV_ID, n_steps=512, seed=0) if by_id else make_agent(make_env(32), n_steps=64)
    agent.learn(2048 * 2, callback=record)
    data = [np.concatenate(part) for part in zip(*record.rollouts, strict=True)]
    run = hand_run(ENV_ID, *data)
    assert data[0].dtype == data[1].dtype == np.int64
    assert run.steps == 4096 and data[0].shape[1] == rows and len(run.episodes) > 400 and not run.wrong
    assert run.has([(r, n) for r, n in record.reported])


def test_off_policy_transitions_are_the_envs():
    agent = sbx.DQN("MlpPolicy", ENV_ID, learning_starts=2000, exploration_initial_eps=1.0, seed=0)
    agent.learn(2000)
    buffer = agent.replay_buffer
    names = "observations", "actions", "rewards", "dones", "next_observations"
    rows, actions, rewards, dones, after = (getattr(buffer, name)[:2000] for name in names)
    run = hand_run(ENV_ID, rows, actions[..., 0], rewards, dones, after)
    assert run.steps == 2000 and len(run.episodes) > 300 and not run.wrong


def test_a_saved_agent_predicts_the_same(tmp_path):
    agent = make_agent(make_env(4))
    agent.save(tmp_path / "agent")
    observations = make_env(4).reset()
    again = sbx.PPO.load(tmp_path / "agent")
    assert (
        agent.predict(observations, deterministic=True)[0] == again.predict(observations, deterministic=True)[0]
    ).all()


def test_it_learns():
    agent = make_agent(make_env(64))
    agent.learn(25_000)
    after = evaluate_policy(agent, make_env(16), n_eval_episodes=64)[0]
    print(after)
    assert after > 0.8
