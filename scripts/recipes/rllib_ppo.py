# /// script
# dependencies = ["textgym[agents]", "ray[rllib]==2.60.0"]
# ///
"""RLlib's PPO on a TextGym id: an RLModule with an embedding of the tokens, and RLlib's own one for action masks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from ray.tune.registry import register_env
from torch import Tensor, nn

import textgym  # noqa: F401 (registers the ids)

ENV_ID = "textgym:TextGenChars-v0"  # the prefix makes Ray's workers import textgym, too


class TokenModule(TorchRLModule, ValueFunctionAPI):
    """Policy and value on an embedding of token ids; RLlib's default network refuses integers."""

    def setup(self) -> None:
        """Make the layers; the spaces are known here."""
        embedding = nn.Embedding(int(self.action_space.n) + 1, 16)  # one more for empty cells
        width = self.observation_space.shape[0]
        self.body = nn.Sequential(embedding, nn.Flatten(), nn.Linear(16 * width, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, int(self.action_space.n)), nn.Linear(64, 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        features = self.body(batch[Columns.OBS].long())
        return {Columns.ACTION_DIST_INPUTS: self.policy(features), Columns.EMBEDDINGS: features}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """The values of texts so far, (N,)."""
        features = self.body(batch[Columns.OBS].long()) if embeddings is None else embeddings
        return self.value(features).squeeze(-1)


class WithMask(gym.ObservationWrapper):
    """What `ActionMaskingTorchRLModule` reads: one-hot tokens and the mask, both float32; RLlib reads no infos."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        vocab_size, width = int(env.action_space.n), env.observation_space.shape[0]  # type: ignore
        self.one_hot = np.eye(vocab_size + 1, dtype=np.float32)
        box = gym.spaces.Box(0, 1, (width * (vocab_size + 1),), np.float32)
        mask = gym.spaces.Box(0, 1, (vocab_size,), np.float32)
        self.observation_space = gym.spaces.Dict({"observations": box, "action_mask": mask})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The row and its mask."""
        mask = self.env.unwrapped.action_masks().astype(np.float32)  # type: ignore[attr-defined]
        return {"observations": self.one_hot[observation].reshape(-1), "action_mask": mask}


def make_config(**env_kwargs: Any) -> PPOConfig:
    """PPO by id, in one process; RLlib makes Gymnasium's own vector env of it."""
    return (
        PPOConfig()
        .environment(ENV_ID, env_config=env_kwargs)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=TokenModule))
        .training(train_batch_size_per_learner=1024, minibatch_size=256, num_epochs=4, lr=3e-3, gamma=1.0)
        .debugging(seed=0)
    )


def make_masked_config(**env_kwargs: Any) -> PPOConfig:
    """PPO where some tokens are forbidden."""
    register_env("masked-texts", lambda _: WithMask(gym.make(ENV_ID, **env_kwargs)))
    spec = RLModuleSpec(module_class=ActionMaskingTorchRLModule, model_config={"fcnet_hiddens": [64]})
    return make_config().environment("masked-texts", env_config={}).rl_module(rl_module_spec=spec)


def train(algorithm: PPO, iterations: int = 25) -> list[float]:
    """Train; returns the mean return of the episodes of each iteration."""
    means = []
    for iteration in range(iterations):
        runners = algorithm.train()["env_runners"]
        means.append(float(runners["episode_return_mean"]))
        print(f"iteration {iteration}: mean return {means[-1]:.3f}, mean length {runners['episode_len_mean']:.1f}")
    return means


if __name__ == "__main__":
    train(make_config().build_algo())
    train(make_masked_config(min_new_tokens=3).build_algo())
