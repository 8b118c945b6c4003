"""An agent to be saved, the env that it goes on with, and what must be the same then."""

import gymnasium as gym

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama

ENV = {**CHARACTERS, "scorer": count_tokens}


def vector_env():
    return gym.make_vec("TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", **ENV)


def agent(cls=REINFORCE, **kwargs):
    return cls("TokenPolicy", vector_env(), small_llama(), **{"seed": 0, "device": "cpu", **kwargs})


def parameters(model):
    return {name: p.detach().clone() for name, p in model.policy.named_parameters()}


def updates(n):
    """A callback that ends the training after n rollouts."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Updates(BaseCallback):
        seen = 0

        def _on_rollout_start(self):
            self.seen += 1

        def _on_step(self):
            return self.seen <= n

    return Updates()
