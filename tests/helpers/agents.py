"""A small agent of any kind, with a log that keeps every value."""

from collections import defaultdict

import gymnasium as gym
import torch
from stable_baselines3.common.logger import Logger

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama


class Log(Logger):
    """Every value that was recorded, by name: one per gradient step, where SB3 keeps their mean."""

    def __init__(self):
        super().__init__(None, [])
        self.all = defaultdict(list)

    def record(self, key, value, exclude=None):
        self.all[key].append(value)
        super().record(key, value, exclude)

    def record_mean(self, key, value, exclude=None):
        self.all[key].append(value)
        super().record_mean(key, value, exclude)


def agent(cls=REINFORCE, n=8, model=None, env=CHARACTERS, scorer=count_tokens, k=4, **kwargs):
    made = gym.make_vec("TextGen-v0", num_envs=n, num_generations=k, autoreset_mode="Disabled", scorer=scorer, **env)
    algorithm = cls("TokenPolicy", made, model or small_llama(), **{"seed": 0, "device": "cpu", **kwargs})
    algorithm.set_logger(Log())
    return algorithm


def randomize_values(algorithm):
    """A value head that says something; it starts at zero."""
    with torch.no_grad():
        algorithm.policy.token_model.value_net.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(2))


def stale_episodes(algorithm, n):
    """A rollout whose old log-probabilities and values are not the policy's, so that every clip is met."""
    episodes, generator = algorithm.sample_episodes(n), torch.Generator().manual_seed(3)
    noise = [0.3 * torch.randn(episodes.mask.shape, generator=generator) * episodes.mask for _ in range(2)]
    return episodes.replace(log_probs=episodes.log_probs + noise[0], values=episodes.values + noise[1])


def gradients(algorithm):
    return {name: p.grad.clone() for name, p in algorithm.policy.named_parameters()}


def weights(algorithm):
    return {name: p.detach().clone() for name, p in algorithm.policy.named_parameters()}


def assert_same(a, b, atol):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
