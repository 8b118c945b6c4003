"""The check of an env.

Left out: rendering (the mode `"human"` would write to the terminal), and vector envs.
"""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from textgym.mdp import IntArray, TextMDP
from textgym.scorers.base import FloatArray
from textgym.testing.rules import demand


def check_env(env: gym.Env[Any, Any], *, episodes: int = 4, seed: int = 0) -> None:
    """Check a single text env: Gymnasium's own checks, warnings being errors, then the MDP's rules on random episodes.

    The rules: an observation grows only at its end, by the action and, where that ends a turn, by a partner's answer,
    and is a copy; an episode terminates exactly at an EOS id or at the T-th token, and is never truncated; nothing is
    paid before that, unless the scorer pays per token; `info` holds numbers only, and every component at the end; a
    seed reproduces its episode; stepping past the end raises `ResetNeeded`.

    Where tokens are restricted, Gymnasium's own checks are left out, because they act without regard to a mask.

    Args:
        env: the env, wrapped or not; the wrappers are not checked.
        episodes: number of random episodes; every other one may end early by EOS.
        seed: seeds the actions and the resets.

    Raises:
        AssertionError: a rule is broken.
    """
    base: Any = env.unwrapped
    for name in ("mdp", "scorer"):
        demand(hasattr(base, name), f"{type(base).__name__} has no attribute {name!r}")
    mdp: TextMDP = base.mdp
    demand(base.observation_space == mdp.observation_space, f"the observation space is not {mdp.observation_space}")
    demand(base.action_space == mdp.action_space, f"the action space is not {mdp.action_space}")
    if not mdp.restricted:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gymnasium_check_env(base, skip_render_check=True)
    for episode in range(episodes):
        first = _episode(base, seed + episode, early=episode % 2 == 1)
        again = _episode(base, seed + episode, early=episode % 2 == 1)
        demand(np.array_equal(first[0], again[0]), f"seed {seed + episode} does not reproduce its observations")
        demand(np.allclose(first[1], again[1]), f"seed {seed + episode} does not reproduce its rewards")


def _episode(env: Any, seed: int, early: bool) -> tuple[IntArray, FloatArray]:
    """One random episode, every rule checked: observations (steps + 1, P + T) and rewards (steps,)."""
    mdp: TextMDP = env.mdp
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    _check_observation(env, obs, info)
    lengths = mdp.completion_lengths(obs)
    demand(lengths == 0, f"an episode starts with {lengths} completion tokens")
    observations, ended = [obs.copy()], False
    rewards: list[float] = []
    while not ended:
        length = int(mdp.completion_lengths(observations[-1]))
        action = _random_action(mdp, rng, length, early)
        obs[:] = mdp.pad_id  # were this the env's own buffer, the next observation would show it
        obs, reward, terminated, truncated, info = env.step(action)
        _check_observation(env, obs, info)
        expected = observations[-1].copy()
        expected[mdp.max_prompt_tokens + length] = action
        if env.task.partner is not None:  # who may have answered
            behind = slice(mdp.max_prompt_tokens + length + 1, None)
            expected[behind] = obs[behind]
        demand(np.array_equal(obs, expected), f"token {action} gave {obs}, not {expected}: rows grow only at their end")
        ended = bool(mdp.ended(obs))
        demand(terminated == ended, f"terminated is {terminated} after {length + 1} tokens, the last one {action}")
        demand(not truncated, "truncated is True; it is for limits outside the env")
        demand(ended or env.scorer.per_token or reward == 0, f"reward {reward} before the end of the episode")
        observations.append(obs.copy())
        rewards.append(reward)
    missing = {"eos", "prompt_id", *env.scorer.component_names} - set(info)
    demand(not missing, f"info at the end has no {sorted(missing)}")
    try:
        env.step(action)
    except ResetNeeded:
        return np.array(observations), np.array(rewards)
    raise AssertionError("a step after the end does not raise gymnasium.error.ResetNeeded")


def _random_action(mdp: TextMDP, rng: np.random.Generator, length: int, early: bool) -> int:
    """An allowed token: EOS a third of the time where the episode may end early, else another one if there is any."""
    mask = mdp.action_masks(np.array(length))
    ends = mask & mdp.is_eos
    goes_on = mask & ~mdp.is_eos
    wanted = ends if early and rng.random() < 1 / 3 else goes_on
    return int(rng.choice(np.flatnonzero(wanted if wanted.any() else mask)))


def _check_observation(env: Any, obs: Any, info: dict[str, Any]) -> None:
    demand(env.observation_space.contains(obs), f"the observation {obs!r} is not in {env.observation_space}")
    for name, value in info.items():
        numeric = isinstance(value, numbers.Number | np.bool_) or (
            isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        )
        demand(numeric, f"info[{name!r}] is {value!r}; info holds numbers only")
