# /// script
# dependencies = ["textgym[agents]", "sbx-rl==0.28.0"]
# ///
"""sbx's PPO (stable-baselines3 in JAX) on a TextGym id, with an embedding of the tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import gymnasium as gym
import jax
import jax.numpy as jnp
from sbx import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

import textgym  # noqa: F401 (registers the ids)
from textgym.sb3 import TextVecEnv

ENV_ID = "TextGenChars-v0"


class TokenEmbedding(nn.Module):
    """(N, P + T) token ids to (N, P + T, 16), where sbx expects an extractor of features."""

    num_embeddings: int
    features_dim: int  # those that sbx gives
    activation_fn: Callable[[jnp.ndarray], jnp.ndarray]

    @nn.compact
    def __call__(self, observations: jnp.ndarray) -> jnp.ndarray:
        """One vector per token; what follows flattens them."""
        return nn.Embed(self.num_embeddings, 16)(observations.astype(jnp.int32))


def make_env(num_envs: int) -> VecEnv:
    """The native vector env as stable-baselines3 sees it; the monitor brings the statistics of episodes."""
    return VecMonitor(TextVecEnv(gym.make_vec(ENV_ID, num_envs=num_envs)))


def make_agent(env: VecEnv, **kwargs: Any) -> PPO:
    """PPO; `"MlpPolicy"` alone would take token ids for quantities."""
    embedding = partial(TokenEmbedding, int(env.action_space.n) + 1)  # type: ignore[attr-defined]
    arguments = {"n_steps": 16, "batch_size": 256, "learning_rate": 3e-3, "gamma": 1.0, "ent_coef": 0.01, "seed": 0}
    policy = {"features_extractor_class": embedding, "net_arch": [64]}
    return PPO("MlpPolicy", env, policy_kwargs=policy, **{**arguments, **kwargs})


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    agent = make_agent(make_env(64))
    agent.learn(25_000)
    print(f"greedy episodes: mean return {evaluate_policy(agent, make_env(16), n_eval_episodes=64)[0]:.3f}")
