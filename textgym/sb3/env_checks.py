"""Which wrappers a language model can act through: those that leave the observations, and the episodes, whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize

from textgym.mdp import TextMDP
from textgym.sb3.vec_env import TextVecEnv


def check_observations(env: Any, mdp: TextMDP) -> None:
    """Refuse an env whose wrappers change what is observed, or what may be done.

    Args:
        env: a Gymnasium env, a vector env, or an SB3 `VecEnv` of them.
        mdp: what it is beneath its wrappers.

    Raises:
        ValueError: it names the wrapper.
    """
    for layer in reversed(list(layers(env))):
        name = type(layer).__name__
        if isinstance(layer, VecNormalize) and layer.norm_obs:
            raise ValueError(f"{name} normalises observations, which here are token ids; pass norm_obs=False")
        prefix = "single_" if isinstance(layer, VectorEnv) else ""
        for what, wanted in (("observation_space", mdp.observation_space), ("action_space", mdp.action_space)):
            if (space := getattr(layer, prefix + what)) != wanted:
                raise ValueError(f"{name} changes the env's {what} to {space}; a TokenPolicy needs the MDP's, {wanted}")


def check_whole_episodes(env: VecEnv, mdp: TextMDP) -> None:
    """Refuse an env whose time limit cuts episodes off.

    Raises:
        ValueError: it names the limit.
    """
    for spec in env.get_attr("spec"):
        limit = None if spec is None else spec.max_episode_steps
        if limit is not None and limit < mdp.max_new_tokens:
            raise ValueError(
                f"the env's time limit, max_episode_steps={limit}, cuts off episodes of max_new_tokens="
                f"{mdp.max_new_tokens}, and agents learn from whole ones; lower max_new_tokens instead"
            )


def layers(env: Any) -> Iterator[Any]:
    """An env and what is inside its wrappers, from the outside in; of several envs the first."""
    while env is not None:
        yield env
        if isinstance(env, (VecEnvWrapper, TextVecEnv)):
            env = env.venv
        elif isinstance(env, (gym.Wrapper, VectorWrapper)):
            env = env.env
        else:
            env = env.envs[0] if isinstance(env, DummyVecEnv) else None
