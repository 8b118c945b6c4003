# /// script
# dependencies = ["textgym[agents]", "tianshou==2.0.1"]
# ///
"""Tianshou's DQN on a TextGym id, with the env's action masks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from torch import nn

import textgym  # noqa: F401 (registers the ids)

ENV_ID = "TextGenChars-v0"


class WithMask(gym.ObservationWrapper):
    """Observations as Tianshou wants them where actions are masked: `obs` and `mask`; it reads no infos."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        mask = gym.spaces.MultiBinary(int(env.action_space.n))  # type: ignore[attr-defined]
        self.observation_space = gym.spaces.Dict({"obs": env.observation_space, "mask": mask})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The row and its mask, (V,) bool."""
        return {"obs": observation, "mask": self.env.unwrapped.action_masks()}  # type: ignore[attr-defined]


def make_envs(num_envs: int, **kwargs: Any) -> DummyVectorEnv:
    """Tianshou's own vector env over single envs; it takes none of Gymnasium's."""
    return DummyVectorEnv([lambda: WithMask(gym.make(ENV_ID, **kwargs)) for _ in range(num_envs)])


class QNetwork(nn.Module):
    """Token ids, (N, P + T), to the values of the next token, (N, V)."""

    def __init__(self, width: int, vocab_size: int):
        super().__init__()
        embedding = nn.Embedding(vocab_size + 1, 16)  # one more for empty cells
        self.layers = nn.Sequential(
            embedding, nn.Flatten(), nn.Linear(16 * width, 64), nn.ReLU(), nn.Linear(64, vocab_size)
        )

    def forward(self, obs: np.ndarray, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        """The values, and the state as it was."""
        return self.layers(torch.as_tensor(obs)), state


def make_algorithm(eps_training: float = 0.3) -> DQN:
    """Double DQN; gamma = 1, as texts have at most T tokens."""
    env: Any = gym.make(ENV_ID)
    network = QNetwork(env.observation_space.shape[0], int(env.action_space.n))
    policy = DiscreteQLearningPolicy(model=network, action_space=env.action_space, eps_training=eps_training)
    return DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=1.0, target_update_freq=100)


def train(steps: int = 20_000, num_envs: int = 16) -> float:
    """Train; returns the mean return of 20 greedy episodes."""
    algorithm = make_algorithm()
    buffer = VectorReplayBuffer(20_000, num_envs)
    result = algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=Collector(algorithm, make_envs(num_envs), buffer, exploration_noise=True),
            test_collector=Collector(algorithm, make_envs(1)),
            max_epochs=1,
            epoch_num_steps=steps,
            collection_step_num_env_steps=num_envs,
            update_step_num_gradient_steps_per_sample=0.1,
            batch_size=256,
            test_step_num_episodes=20,
            show_progress=False,
        )
    )
    return float(result.best_reward)


if __name__ == "__main__":
    torch.manual_seed(0)
    np.random.seed(0)
    print(f"greedy episodes: mean return {train():.3f}")
