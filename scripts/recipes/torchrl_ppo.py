# /// script
# dependencies = ["textgym[agents]", "torchrl==0.14.1", "tensordict==0.14.3"]
# ///
"""TorchRL's PPO on a TextGym id: one env, or the native vector env in autoreset mode "Disabled"."""

from __future__ import annotations

import gymnasium as gym
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymEnv, GymWrapper
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import textgym  # noqa: F401 (registers the ids)

ENV_ID = "TextGenChars-v0"


def make_env(num_envs: int | None = None) -> EnvBase:
    """The single env, or `num_envs` of them: actions are token ids, not one-hot vectors of V numbers."""
    if num_envs is None:
        return GymEnv(ENV_ID, categorical_action_encoding=True)
    envs = gym.make_vec(ENV_ID, num_envs=num_envs, autoreset_mode="Disabled")  # TorchRL resets the rows that end
    return GymWrapper(envs, categorical_action_encoding=True)


def make_network(env: EnvBase, outputs: int) -> nn.Module:
    """(..., P + T) token ids, or V where there is none, to (..., outputs)."""
    vocab_size, width = env.action_spec.space.n, env.observation_spec["observation"].shape[-1]
    embedding = nn.Embedding(vocab_size + 1, 16)
    return nn.Sequential(embedding, nn.Flatten(-2), nn.Linear(16 * width, 64), nn.Tanh(), nn.Linear(64, outputs))


def make_actor(env: EnvBase) -> ProbabilisticActor:
    """A categorical policy."""
    network = make_network(env, env.action_spec.space.n)
    logits = TensorDictModule(network, in_keys=["observation"], out_keys=["logits"])
    return ProbabilisticActor(logits, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)


def train(env: EnvBase, total_frames: int = 30_000, frames_per_batch: int = 1000, epochs: int = 4) -> list[float]:
    """PPO; returns the mean reward of the episodes that ended in each batch (all of it is paid at the end)."""
    actor, critic = make_actor(env), ValueOperator(make_network(env, 1), in_keys=["observation"])
    loss_module = ClipPPOLoss(actor, critic, entropy_coeff=0.01)
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=critic, average_gae=True)
    optimizer = torch.optim.Adam(loss_module.parameters(), 3e-3)
    means = []
    for batch in Collector(env, actor, frames_per_batch=frames_per_batch, total_frames=total_frames):
        ended = batch["next", "reward"][batch["next", "done"]]
        means.append(float(ended.mean()))
        for _ in range(epochs):
            with torch.no_grad():
                advantage(batch)
            losses = loss_module(batch.reshape(-1))
            optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
            optimizer.step()
        print(f"batch {len(means)}: {len(ended)} episodes, mean return {means[-1]:.3f}")
    return means


if __name__ == "__main__":
    torch.manual_seed(0)
    train(make_env(num_envs=32))
