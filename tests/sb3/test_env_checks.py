"""Envs that an agent cannot learn from are refused by name when it is made; those that it can learn from work."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import ClipReward, FrameStackObservation, RescaleObservation, TimeLimit, TransformReward
from stable_baselines3 import PPO as StockPPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

from agents import PPO, REINFORCE, QLearning
from tests.conftest import CHARACTERS, count_tokens, small_llama
from tests.helpers.agents import agent
from textgym.sb3 import TextVecEnv, TokenPolicy

T = CHARACTERS["max_new_tokens"]
KWARGS = {**CHARACTERS, "scorer": count_tokens}


def single(**kwargs):
    return gym.make("TextGen-v0", **KWARGS, **kwargs)


def vector(mode="Disabled"):
    return TextVecEnv(gym.make_vec("TextGen-v0", num_envs=4, num_generations=2, autoreset_mode=mode, **KWARGS))


def made(env, **kwargs):
    return REINFORCE("TokenPolicy", env, small_llama(), baseline="none", seed=0, device="cpu", **kwargs)


class Shorter(gym.Wrapper):
    """Truncates after two steps, without a word of it in the spec."""

    def reset(self, **kwargs):
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        *rest, terminated, truncated, info = super().step(action)
        return *rest, terminated, truncated or self.steps == 2, info


REFUSED = {
    "max_episode_steps": (lambda: single(max_episode_steps=2), f"max_episode_steps=2, .* max_new_tokens={T}"),
    "TimeLimit": (lambda: TimeLimit(single(), T - 1), f"max_episode_steps={T - 1}"),
    "TimeLimit in a DummyVecEnv": (lambda: DummyVecEnv([lambda: TimeLimit(single(), 2)]), "max_episode_steps=2"),
    "VecNormalize": (lambda: VecNormalize(vector()), "VecNormalize normalises .* pass norm_obs=False"),
    "VecNormalize beneath": (lambda: VecMonitor(VecNormalize(vector())), "VecNormalize normalises"),
    "VecFrameStack": (lambda: VecFrameStack(vector(), 2), "VecFrameStack changes the env's observation_space to Box"),
    "FrameStackObservation": (
        lambda: FrameStackObservation(single(), 2),
        "FrameStackObservation changes the env's obs",
    ),
    "RescaleObservation": (
        lambda: RescaleObservation(single(), np.float32(0), np.float32(1)),
        "changes the env's observation_space",
    ),
    "a vector wrapper": (
        lambda: gym.wrappers.vector.DtypeObservation(vector().venv, np.float64),
        "DtypeObservation changes the env's observation_space",
    ),
    "CartPole-v1": (lambda: "CartPole-v1", "'CartPole-v1' is not a TextGym env: .*num_generations"),
    "a CartPole": (lambda: gym.make("CartPole-v1"), "is not a TextGym env: it has no TextMDP"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_env_that_hides_its_mdp_is_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        made(make())
    if name != "CartPole-v1":
        first = agent(k=1, baseline="none")
        env = first.env
        with pytest.raises(ValueError, match=message):
            first.set_env(make())
        assert first.env is env
    if "Time" not in name and "max" not in name and name != "CartPole-v1":  # stock agents know truncation
        with pytest.raises(ValueError, match=message):
            TokenPolicy.kwargs_for(make(), small_llama())


def test_a_truncation_that_no_spec_tells_of_is_named_in_the_rollout():
    with pytest.raises(ValueError, match="a wrapper cut an episode off after 2 tokens; agents need whole ones"):
        made(Shorter(single())).learn(100)


@pytest.mark.parametrize(
    "make",
    [
        lambda: single(max_episode_steps=T),
        lambda: ClipReward(single(), 0, 1),
        lambda: TransformReward(single(), lambda reward: reward / 2),
        lambda: VecNormalize(vector(), norm_obs=False),
        lambda: VecMonitor(vector("SameStep")),
        lambda: gym.wrappers.vector.RecordEpisodeStatistics(vector().venv),
    ],
)
def test_wrappers_that_leave_the_mdp_as_it_is_work(make):
    trained = made(make())
    trained.learn(1)
    assert trained._n_updates == 1


def test_evaluation_and_stock_agents_work_on_an_env_in_disabled_mode():
    trained = agent(n=4, k=2)
    trained.learn(1)
    rewards, lengths = evaluate_policy(trained, trained.get_env(), n_eval_episodes=12, return_episode_rewards=True)
    assert len(rewards) == 12 and rewards == lengths  # the scorer counts tokens
    again = agent(n=4, k=2)
    again.learn(40, callback=EvalCallback(vector(), n_eval_episodes=8, eval_freq=3, verbose=0))
    assert again._n_updates >= 2
    stock = StockPPO("MlpPolicy", VecMonitor(vector()), n_steps=16, batch_size=8, n_epochs=1, device="cpu")
    stock.learn(128)
    assert stock.num_timesteps >= 128 and len(stock.ep_info_buffer) > 4


def test_an_evaluation_in_the_agents_own_env_leaves_the_training_as_it_is():
    def rewards(evaluate):
        trained = agent(n=4, k=2)
        trained.learn(1)
        if evaluate:
            evaluate_policy(trained, trained.get_env(), n_eval_episodes=5)
        trained.set_random_seed(3)
        return trained.sample_episodes(8).rewards.tolist()

    assert rewards(False) == rewards(True)


@pytest.mark.parametrize("cls", [REINFORCE, PPO])
def test_tensorboard_runs_carry_the_agents_name(cls, tmp_path):
    trained = agent(cls, tensorboard_log=str(tmp_path), device="cpu")
    trained._logger, trained._custom_logger = None, False  # the test's own log, which `agent` set
    trained.learn(1)
    assert [folder.name for folder in tmp_path.iterdir()] == [f"{cls.__name__}_1"]
    trained.learn(1, tb_log_name="mine")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == sorted([f"{cls.__name__}_1", "mine_1"])


def test_q_learning_waits_for_nothing_in_disabled_mode():
    env = gym.make_vec("TextGenToy-v0", num_envs=4, autoreset_mode="Disabled")
    learned = QLearning("TabularPolicy", env, seed=0, device="cpu")
    learned.learn(200)
    assert learned.num_timesteps >= 200 and learned._episode_num > 40
