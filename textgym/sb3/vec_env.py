"""The stable-baselines3 `VecEnv` over a Gymnasium vector env."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import VecEnv

from textgym.envs.deferred import DeferredScores
from textgym.training.rollouts import deferring


class TextVecEnv(VecEnv):
    """A vector env as SB3 sees it.

    Over an env in `"SameStep"` mode it is an ordinary `VecEnv`: an ended row starts anew, and its last observation is
    `infos[i]["terminal_observation"]`. Over one in `"Disabled"` mode an ended row reports `done` once, in the same
    form, and begins its next one as well, unless `plan` says otherwise: `EpisodicAlgorithm` collects complete episodes
    without waste: rows that have played theirs take over what others have not begun, and then wait.

    Args:
        venv: a `TextGenerationVectorEnv`, wrapped or not.

    Attributes:
        playing: (2, N) the episode that each row plays, or played last: its number since the last full reset among
            those of a row, and this row, whose prompts they are.

    Raises:
        ValueError: the env resets on the step after an end (`NEXT_STEP`).
    """

    def __init__(self, venv: VectorEnv[Any, Any, np.ndarray]):
        mode = venv.metadata["autoreset_mode"]
        if mode is AutoresetMode.NEXT_STEP:
            raise ValueError(
                "stable-baselines3 needs a vector env in SameStep or Disabled autoreset mode, not NextStep"
            )
        self.venv = venv
        self._same_step = mode is AutoresetMode.SAME_STEP
        self._next_plan = self._plan = sys.maxsize, 1, 1
        self._live, self._begun = np.zeros(venv.num_envs, bool), np.zeros(venv.num_envs, np.int64)
        self.playing = np.stack([self._begun, np.arange(venv.num_envs)])
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    def plan(self, episodes: int, together: int = 1, period: int = 1) -> None:
        """What follows the next `reset`, and that one only; for a vector env in Disabled mode.

        Args:
            episodes: of every row.
            together: rows begin their next episode when this many wait for it, or nothing else is live.
            period: row i takes over what is left of row j only if j - i is a multiple of it, as those that one and the
                same of several actors plays are (`textgym.training.Alternating`).
        """
        self._next_plan = episodes, together, period

    def reset(self) -> np.ndarray:
        """Start an episode in every row; seeds, options and a plan set before are used once."""
        obs, info = self.venv.reset(seed=self._seeds[0], options=self._merged_options())
        self.reset_infos = [row_of(info, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        self._live[:], self._begun[:] = True, 1
        self.playing = np.stack([np.zeros_like(self._begun), np.arange(self.num_envs)])
        self._plan, self._next_plan = self._next_plan, (sys.maxsize, 1, 1)
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`, (N,) integers."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations (N, P + T), rewards (N,) float32, dones (N,) bool, a dict per row."""
        obs, rewards, terminations, truncations, info = self.venv.step(self._actions)
        dones = terminations | truncations
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones).tolist():
            infos[i] = row_of(info.get("final_info", info) if self._same_step else info, i)
            infos[i]["terminal_observation"] = info["final_obs"][i] if self._same_step else obs[i].copy()
            infos[i]["TimeLimit.truncated"] = bool(truncations[i] and not terminations[i])
            if self._same_step:
                self.reset_infos[i] = {k: v for k, v in row_of(info, i).items() if not k.startswith("final_")}
        if self._same_step:
            self.playing[0] += dones
        else:
            obs = self._restart(obs, dones)
        return obs, rewards.astype(np.float32), dones, infos

    def _restart(self, obs: np.ndarray, dones: np.ndarray) -> np.ndarray:
        """Begin the next episodes in the rows that have ended, where it is time to."""
        self._live &= ~dones
        while not self._live.all():
            owners = self._owners()
            begin = ~self._live & (owners >= 0)
            if not begin.any() or (begin.sum() < self._plan[1] and self._live.any()):
                break
            obs, info = self.venv.reset(options={"reset_mask": begin, "episode_of": owners})
            self.playing[:, begin] = self._begun[owners[begin]], owners[begin]
            self._begun[owners[begin]] += 1
            self._live |= begin
            for i in np.flatnonzero(begin).tolist():
                self.reset_infos[i] = row_of(info, i)
        return obs

    def _owners(self) -> np.ndarray:
        """(N,) whose next episode each row would play: its own, else one of those of whom most is left; -1 for none."""
        episodes, _, period = self._plan
        left, rows = episodes - self._begun, np.arange(self.num_envs)  # (N,)
        owners = np.where(left > 0, rows, -1)
        idle, behind = ~self._live & (left == 0), self._live & (left > 0)
        for first in range(period):
            alike = rows % period == first
            takers, others = rows[alike & idle], rows[alike & behind]
            others = others[np.argsort(-left[others], kind="stable")][: len(takers)]
            owners[takers[: len(others)]] = others
        return owners

    def deferring(self) -> AbstractContextManager[DeferredScores | None]:
        """A block in which a slow scorer is asked behind the env (`textgym.training.rollouts.deferring`)."""
        return nullcontext() if self._same_step else deferring(self.venv)

    def close(self) -> None:
        """Close the vector env."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector env's attribute, once per row."""
        return [getattr(self.venv.unwrapped, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector env, which all rows share."""
        setattr(self.venv.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the vector env once; an array of N rows is handed out by row, anything else whole."""
        results = self.venv.unwrapped.call(method_name, *method_args, **method_kwargs)  # type: ignore[attr-defined]
        return [results[i] for i in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """False: the rows of a native vector env have no wrappers of their own."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))

    def _merged_options(self) -> dict[str, Any] | None:
        """One `{"prompt": ...}` per row, as SB3 keeps them, becomes `{"prompts": [...]}`."""
        if not any(self._options):
            return None
        if not all(set(options) == {"prompt"} for options in self._options):
            raise ValueError(f"set_options accepts {{'prompt': ...}} for every row, not {self._options}")
        return {"prompts": [options["prompt"] for options in self._options]}


def row_of(info: dict[str, Any], i: int) -> dict[str, Any]:
    """Row i of a vector env's info: the entries whose mask is set."""
    row = {}
    for name, values in info.items():
        if f"_{name}" in info and info[f"_{name}"][i]:
            nested = isinstance(values, dict)
            row[name] = {k: v[i] for k, v in values.items() if not k.startswith("_")} if nested else values[i]
    return row


def wrappers_of(env: VecEnv) -> list[str]:
    """The classes of what is around the vector env that `env` is over, the outermost first."""
    names, inner = [], getattr(env.unwrapped, "venv", None)
    while isinstance(inner, VectorWrapper):
        names.append(type(inner).__name__)
        inner = inner.env
    return names
