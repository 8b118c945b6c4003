"""Wrappers that show the context's number in place of the token ids, for tabular methods."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from textgym.contexts import check_enumerable, context_indices
from textgym.mdp import IntArray


class DiscreteContexts(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """The observation is the number of the context, `Discrete(S + 1)`; S where the episode has ended.

    Contexts are ordered by length, then as base-K numbers (`textgym.contexts`), so a table of Q-values has S rows and
    K + 1 columns, EOS last. The wrapped env's rows stay in reach as `env.unwrapped`.

    Args:
        env: a TextGym env whose prompt is BOS alone, with P = 1 and the largest token id as BOS and only EOS:
            `TextGenToy-v0`, `TextGenWords-v0`, `TextGenChars-v0` or one like them.

    Attributes:
        num_contexts: S.

    Raises:
        ValueError: another env, too many contexts, or (at reset) another prompt.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        RecordConstructorArgs.__init__(self)  # so that `env.spec` can make the wrapper again
        gym.ObservationWrapper.__init__(self, env)
        self.num_contexts, self.observation_space = _discrete(env)

    def observation(self, observation: IntArray) -> Any:
        """(1 + L,) int64 -> an int64 scalar."""
        return context_indices(self.env.unwrapped.mdp, observation)[()]  # type: ignore[attr-defined]


class VectorDiscreteContexts(VectorWrapper, RecordConstructorArgs):
    """`DiscreteContexts` for a vector env: observations are (N,) int64, `MultiDiscrete` with S + 1 values each.

    Under SameStep `info["final_obs"]` is (N,) int64 too; an episode that has ended is in S, which also fills the rows
    that have not. (Gymnasium's `VectorObservationWrapper` would refuse SameStep, so this is a plain `VectorWrapper`.)

    Args:
        env: a vector env of the kind that `DiscreteContexts` accepts.

    Attributes:
        num_contexts: S.

    Raises:
        ValueError: as `DiscreteContexts`.
    """

    def __init__(self, env: VectorEnv):
        RecordConstructorArgs.__init__(self)
        VectorWrapper.__init__(self, env)
        self.num_contexts, self.single_observation_space = _discrete(env)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the vector env; the observations are numbers of contexts, (N,) int64."""
        observations, info = self.env.reset(seed=seed, options=options)
        return self._indices(observations), info

    def step(self, actions: Any) -> tuple[IntArray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the vector env; the observations are numbers of contexts, (N,) int64."""
        observations, rewards, terminations, truncations, info = self.env.step(actions)
        if "final_obs" in info:
            info = {**info, "final_obs": np.full(self.num_envs, self.num_contexts)}
        return self._indices(observations), rewards, terminations, truncations, info

    def _indices(self, observations: IntArray) -> IntArray:
        return context_indices(self.env.unwrapped.mdp, observations)  # type: ignore[attr-defined]


def _discrete(env: Any) -> tuple[int, spaces.Discrete]:
    """S and the space of context numbers."""
    mdp = getattr(env.unwrapped, "mdp", None)
    if mdp is None:
        raise ValueError(f"{env} is not a TextGym env: it has no TextMDP")
    contexts, _ = check_enumerable(mdp)
    return contexts, spaces.Discrete(contexts + 1)
