"""The same keys in `info` at every step, for recorders that lay steps side by side (Minari, TorchRL)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from textgym.mdp import BoolArray, IntArray
from textgym.wrappers.episodes import task_of


class ConstantInfo(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """`info` has the same keys, with values of the same types and shapes, at reset and at every step.

    | key | before the end of an episode | at the end |
    |---|---|---|
    | `prompt_id` (int) | the episode's prompt | the same |
    | every scorer component (float) | 0.0 | its value |
    | `eos` (bool) | False | ended by an end-of-text token |
    | `action_mask`, (V,) int8, where tokens are restricted | what may be chosen | the same |
    | `unshaped_return` (float), `credits` (T,), where a wrapper beneath brings them | 0.0 | their values |
    | what `defaults` names | the default | what the wrapper gives |

    Whether a 0 is a value, `terminated` says. (NaN would say it too, but is not equal to itself, so that Gymnasium's
    checker would find two runs of one seed unlike each other.)

    Args:
        env: a TextGym env, with those wrappers on it that bring keys of their own.
        defaults: further keys, of wrappers that are not TextGym's, and their values where these give none; of
            `RecordEpisodeStatistics` `{"episode": {"r": 0.0, "l": 0, "t": 0.0}}`.

    Raises:
        ValueError: another env, or (when stepping) a key that is not known in advance.
    """

    def __init__(self, env: gym.Env[Any, Any], defaults: Mapping[str, Any] | None = None):
        RecordConstructorArgs.__init__(self, defaults=defaults)
        gym.Wrapper.__init__(self, env)
        self._defaults = {**end_defaults(env), **(defaults or {})}
        self._known = {"prompt_id", *self._defaults} | ({"action_mask"} if task_of(env).mdp.restricted else set())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the env."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._prompt_id = info["prompt_id"]
        return observation, self._completed(info)

    def step(self, action: Any) -> tuple[IntArray, Any, bool, bool, dict[str, Any]]:
        """Step the env."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._completed(info)

    def _completed(self, info: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(info, self._known)
        default = {name: copied(value) for name, value in self._defaults.items()}
        return {"prompt_id": self._prompt_id, **default, **info}


class VectorConstantInfo(VectorWrapper, RecordConstructorArgs):
    """`ConstantInfo` for the native vector env: arrays of N entries and their masks, at reset and at every step.

    An entry whose mask is False is the default. `prompt_id` is that of every row, with a mask that is True.

    Under SameStep what ended episodes report is in `final_info`, and so it is here, at every step: `final_info` holds
    the components, `eos`, `prompt_id` (-1 where no episode ended) and what wrappers bring; `final_obs`, (N, P + T), is
    all pad where none ended; `prompt_id` and what `defaults` names are beside them.

    Args:
        env: a TextGym vector env, of `gym.make_vec`, with those wrappers on it that bring keys of their own.
        defaults: see `ConstantInfo`; a value is that of one row.

    Raises:
        ValueError: as `ConstantInfo`.
    """

    def __init__(self, env: VectorEnv, defaults: Mapping[str, Any] | None = None):
        RecordConstructorArgs.__init__(self, defaults=defaults)
        VectorWrapper.__init__(self, env)
        self.autoreset_mode = env.metadata["autoreset_mode"]  # TorchRL asks the outermost env for it
        mdp, ends, top = task_of(env).mdp, end_defaults(env), {**(defaults or {}), "prompt_id": -1}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            top["final_obs"] = np.full(mdp.max_prompt_tokens + mdp.max_new_tokens, mdp.pad_id)
            top["final_info"] = WithMasks({**ends, "prompt_id": -1})
        else:
            top |= ends
        self._defaults = WithMasks(top)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the vector env."""
        observations, info = self.env.reset(seed=seed, options=options)
        self._prompt_ids = info["prompt_id"].copy()
        return observations, self._completed(info)

    def step(self, actions: Any) -> tuple[IntArray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the vector env."""
        observations, rewards, terminations, truncations, info = self.env.step(actions)
        if "prompt_id" in info:
            self._prompt_ids = info["prompt_id"].copy()
        return observations, rewards, terminations, truncations, self._completed(info)

    def _completed(self, info: dict[str, Any]) -> dict[str, Any]:
        prompts = {"prompt_id": self._prompt_ids.copy(), "_prompt_id": np.ones(self.num_envs, bool)}
        return filled(self._defaults, info, np.ones(self.num_envs, bool)) | prompts


class WithMasks(dict[str, Any]):
    """Defaults by name whose values each have a mask beside them, as in a vector env's info; other dicts have none."""


def filled(default: Any, values: Any, mask: BoolArray) -> Any:
    """The values of rows where there are some, and the default elsewhere.

    Args:
        default: of one row: a number, an array, or a dict of them.
        values: (N, ...) or a dict of them; None where no row has a value.
        mask: (N,) which rows of `values` are any.

    Returns:
        (N, ...) or a dict of them.

    Raises:
        ValueError: there is a value without a default.
    """
    if isinstance(default, Mapping):
        given, entries = values or {}, {}
        refuse_unknown(given, {*default, *(f"_{name}" for name in default)})
        for name, one in default.items():
            rows = mask & given.get(f"_{name}", False) if isinstance(default, WithMasks) else mask
            entries[name] = filled(one, given.get(name), rows)
            if isinstance(default, WithMasks):
                entries[f"_{name}"] = rows
        return entries
    array = np.repeat(np.asarray(default)[None], len(mask), 0)
    if values is not None:
        array = array.astype(np.result_type(array, values), copy=False)
        array[mask] = values[mask]
    return array


def end_defaults(env: Any) -> dict[str, Any]:
    """What is reported at the end of an episode, by name, and what stands for it before: 0.0, or False for `eos`."""
    found: dict[str, Any] = dict.fromkeys(task_of(env).scorer.component_names, 0.0) | {"eos": False}
    while env is not env.unwrapped:
        found |= getattr(env, "end_defaults", {})
        env = env.env
    return found


def refuse_unknown(info: dict[str, Any], known: set[str]) -> None:
    """Raise a ValueError for a key that other steps would not have."""
    if unknown := sorted(info.keys() - known):
        raise ValueError(
            f"info has the key {unknown[0]!r}, which is not at every step; say with defaults={{{unknown[0]!r}: ...}} "
            "what stands there at the others"
        )


def copied(value: Any) -> Any:
    """A copy of a default, so that nothing that is done to one step's info reaches another's."""
    if isinstance(value, Mapping):
        return {name: copied(one) for name, one in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value
