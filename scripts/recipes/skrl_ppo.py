# /// script
# dependencies = ["textgym[agents]", "skrl==2.1.1"]
# ///
"""skrl's PPO on a TextGym id: the native vector env in autoreset mode "SameStep"."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import Wrapper, wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import nn

import textgym  # noqa: F401 (registers the ids)

ENV_ID = "TextGenChars-v0"


def make_network(env: Wrapper, outputs: int) -> nn.Module:
    """(N, P + T) token ids to (N, outputs)."""
    embedding = nn.Embedding(env.action_space.n + 1, 16)  # one more for empty cells
    width = env.observation_space.shape[0]
    return nn.Sequential(embedding, nn.Flatten(), nn.Linear(16 * width, 64), nn.Tanh(), nn.Linear(64, outputs))


class Policy(CategoricalMixin, Model):
    """The next token's logits."""

    def __init__(self, env: Wrapper):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        CategoricalMixin.__init__(self)
        self.network = make_network(env, env.action_space.n)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """Of observations that skrl has made floats; an embedding takes integers."""
        return self.network(inputs["observations"].long()), {}


class Value(DeterministicMixin, Model):
    """The value of a text so far."""

    def __init__(self, env: Wrapper):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        DeterministicMixin.__init__(self)
        self.network = make_network(env, 1)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """As in `Policy`."""
        return self.network(inputs["observations"].long()), {}


def make_agent(env: Wrapper, rollouts: int = 16, cls: type[PPO] = PPO) -> PPO:
    """PPO with a memory of one rollout."""
    cfg = PPO_CFG(rollouts=rollouts, learning_rate=3e-3, discount_factor=1.0, entropy_loss_scale=0.01)
    return cls(
        models={"policy": Policy(env), "value": Value(env)},
        memory=RandomMemory(memory_size=rollouts, num_envs=env.num_envs, device=env.device),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
        cfg=cfg,
    )


def train(env: Wrapper, agent: PPO, timesteps: int = 400) -> None:
    """Train for some steps of every row."""
    cfg = {"timesteps": timesteps, "headless": True, "close_environment_at_exit": False, "disable_progressbar": True}
    SequentialTrainer(env=env, agents=agent, cfg=cfg).train()


def evaluate(agent: PPO, episodes: int = 256) -> float:
    """The mean return of sampled texts."""
    env = wrap_env(gym.make_vec(ENV_ID, num_envs=episodes))
    observations, _ = env.reset()
    total, running = torch.zeros(episodes, 1), torch.ones(episodes, 1, dtype=torch.bool)
    while running.any():
        with torch.no_grad():
            actions, _ = agent.act(observations, None, timestep=0, timesteps=0)
        observations, rewards, terminated, _, _ = env.step(actions)
        total += rewards * running
        running &= ~terminated
    return float(total.mean())


if __name__ == "__main__":
    set_seed(0)
    envs = wrap_env(gym.make_vec(ENV_ID, num_envs=64))
    ppo = make_agent(envs)
    train(envs, ppo)
    print(f"mean return {evaluate(ppo):.3f}")
