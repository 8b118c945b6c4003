"""The base of wrappers that add a term to each step's reward: `PotentialShaping` and `ReferenceReward`.

The term computes on N rows at once; the single env is the case N = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from textgym.mdp import BoolArray, IntArray
from textgym.scorers.base import FloatArray
from textgym.wrappers.episodes import with_end_values

UNSHAPED_RETURN = "unshaped_return"
"""In `info` at the end of an episode: its undiscounted return without what wrappers added, whichever came first."""


class RewardTerm(ABC):
    """What is added to the rewards of N rows, which may begin and end at any time."""

    @abstractmethod
    def reset(self, observations: IntArray, prompt_ids: IntArray, begun: BoolArray) -> None:
        """Take note of the episodes that begin.

        Args:
            observations: (N, P + T) of all rows.
            prompt_ids: (N,)
            begun: (N,) the rows whose episodes begin.
        """

    @abstractmethod
    def step(
        self, actions: IntArray, observations: IntArray, prompt_ids: IntArray, terminations: BoolArray
    ) -> FloatArray:
        """What a step's rewards grow by, (N,); 0 in rows that took no action because they had ended before.

        Args:
            actions: (N,) tokens.
            observations: (N, P + T) after the step; of a row that terminated possibly the next episode's first.
            prompt_ids: (N,) of the observations.
            terminations: (N,)
        """


class TermWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds a term to the rewards of a single env."""

    def __init__(self, env: gym.Env[Any, Any], term: RewardTerm):
        gym.Wrapper.__init__(self, env)
        self._term = term

    @property
    def end_defaults(self) -> dict[str, Any]:
        """What `ConstantInfo` shows before the end."""
        return {UNSHAPED_RETURN: 0.0}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the env."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._prompt_ids, self._return = np.array([info["prompt_id"]]), 0.0
        self._term.reset(observation[None], self._prompt_ids, np.ones(1, bool))
        return observation, info

    def step(self, action: Any) -> tuple[IntArray, float, bool, bool, dict[str, Any]]:
        """Step the env, and add the term to its reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward)
        self._return += reward
        term = self._term.step(np.array([action]), observation[None], self._prompt_ids, np.array([terminated]))
        if terminated or truncated:
            info = {UNSHAPED_RETURN: self._return, **info}
        return observation, reward + float(term[0]), terminated, truncated, info


class VectorTermWrapper(VectorWrapper, RecordConstructorArgs):
    """Adds a term to the rewards of a native vector env."""

    def __init__(self, env: VectorEnv, term: RewardTerm):
        VectorWrapper.__init__(self, env)
        self._term, self._returns = term, np.zeros(env.num_envs)

    @property
    def end_defaults(self) -> dict[str, Any]:
        """What `VectorConstantInfo` shows before the end."""
        return {UNSHAPED_RETURN: 0.0}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the vector env, or the rows that `options["reset_mask"]` names."""
        observations, info = self.env.reset(seed=seed, options=options)
        begun = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        self._prompt_ids = info["prompt_id"].copy()
        self._returns[begun] = 0.0
        self._term.reset(observations, self._prompt_ids, begun)
        return observations, info

    def step(self, actions: Any) -> tuple[IntArray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the vector env, and add the term to its rewards."""
        observations, rewards, terminations, truncations, info = self.env.step(actions)
        self._returns += rewards
        if "prompt_id" in info:
            self._prompt_ids = info["prompt_id"].copy()
        term = self._term.step(np.asarray(actions), observations, self._prompt_ids, terminations)
        ended = terminations | truncations
        info = with_end_values(info, ended, {UNSHAPED_RETURN: self._returns})
        self._returns[ended] = 0.0
        return observations, rewards + term, terminations, truncations, info
