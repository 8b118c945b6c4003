"""skrl's data beside hand runs; run by test_in_environments.py, where skrl is installed."""

import gymnasium as gym
import pytest
import torch
from gymnasium.error import ResetNeeded
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.utils import set_seed

from scripts.recipes.skrl_ppo import ENV_ID, evaluate, make_agent, train
from tests.helpers.hand_runs import hand_run

NAMES = "observations", "actions", "rewards", "terminated", "next_observations"


class Recording(PPO):
    """PPO that keeps what it is told."""

    def record_transition(self, **transition):
        self.__dict__.setdefault("seen", []).append([transition[name].clone() for name in NAMES])
        super().record_transition(**transition)


def recorded(envs, timesteps=200):
    """What PPO is told while it trains, as `hand_run` wants it."""
    set_seed(0)
    env = wrap_env(envs)
    agent = make_agent(env, cls=Recording)
    train(env, agent, timesteps)
    parts = [torch.stack(part).numpy() for part in zip(*agent.seen, strict=True)]
    return [parts[0], *(part[..., 0] for part in parts[1:4]), parts[4]]


def test_every_transition_but_the_next_observation_of_an_end_is_the_envs():
    """`next_observations` of an end is the next episode's; PPO reads no value of it, as the episode terminated."""
    *data, after = recorded(gym.make_vec(ENV_ID, num_envs=32))
    run = hand_run(ENV_ID, *data)
    assert run.steps == 6400 and len(run.episodes) > 800 and not run.wrong
    wrong = hand_run(ENV_ID, *data, after).wrong
    assert wrong == {"next observation": data[3].sum()}


def test_gymnasiums_vector_env_brings_dead_steps():
    data = recorded(gym.make_vec(ENV_ID, num_envs=32, vectorization_mode="sync"))
    wrong = hand_run(ENV_ID, *data).wrong
    assert wrong["dead step"] > 500 and set(wrong) == {"dead step"}


def test_rows_that_wait_for_a_reset_are_never_reset():
    with pytest.raises(ResetNeeded):
        recorded(gym.make_vec(ENV_ID, num_envs=4, autoreset_mode="Disabled"))


def test_a_second_reset_is_none():
    env = wrap_env(gym.make_vec(ENV_ID, num_envs=4))
    env.reset()
    observations, *_ = env.step(torch.zeros(4, 1))
    assert torch.equal(env.reset()[0], observations)


def test_it_renders():
    """skrl's trainer calls `env.call("render")` at every step unless it is told to be headless."""
    env = wrap_env(gym.make_vec(ENV_ID, num_envs=4, render_mode="ansi"))
    env.reset()
    assert len(env.render()) == 4


def test_it_learns():
    set_seed(0)
    env = wrap_env(gym.make_vec(ENV_ID, num_envs=64))
    agent = make_agent(env)
    agent.init()
    before = evaluate(agent)
    train(env, agent)
    after = evaluate(agent)
    print(before, after)
    assert before < 0.2 and after > 0.7
