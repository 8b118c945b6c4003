"""How far a stable-baselines3 algorithm is between two rollouts: taken from it, and given to another."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from textgym.training.random_state import random_state, set_random_state
from textgym.training.state import Progress


def generators_of(env: VecEnv) -> list[np.random.Generator]:
    """The envs' own generators. Between rollouts, which begin with a reset, they are all of an env's state."""
    return env.get_attr("np_random")


def progress_of(algorithm: BaseAlgorithm, iterations: int) -> Progress:
    """How far an algorithm is, which must be between two rollouts."""
    assert algorithm.env is not None
    logger: Any = getattr(algorithm, "_logger", None)
    log: dict[str, Any] = {}
    for name, value in logger.name_to_value.items() if logger is not None else ():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, int | float | str):  # no figures, which a callback may have logged
            log[name] = [value, logger.name_to_count[name], logger.name_to_excluded.get(name)]
    return Progress(
        num_timesteps=algorithm.num_timesteps,
        n_updates=algorithm._n_updates,
        iterations=iterations,
        random_state=random_state(generators_of(algorithm.env)),
        log=log,
        last_episodes=[[float(one["r"]), int(one["l"])] for one in algorithm.ep_info_buffer or ()],
    )


def restore_progress(algorithm: BaseAlgorithm, progress: Progress) -> None:
    """Give an algorithm, which is about to begin a rollout, the random state and the pending log of `progress`."""
    assert algorithm.env is not None
    set_random_state(progress.random_state, generators_of(algorithm.env))
    for name, (value, count, exclude) in progress.log.items():
        algorithm.logger.name_to_value[name] = value
        algorithm.logger.name_to_count[name] = count
        algorithm.logger.name_to_excluded[name] = tuple(exclude) if isinstance(exclude, list) else exclude


def count_on(algorithm: BaseAlgorithm, progress: Progress) -> None:
    """Give an algorithm, which was just made, the counters of `progress`."""
    algorithm.num_timesteps, algorithm._n_updates = progress.num_timesteps, progress.n_updates
    episodes = [{"r": value, "l": length} for value, length in progress.last_episodes]
    algorithm.ep_info_buffer = deque(episodes, maxlen=algorithm._stats_window_size)
    algorithm.ep_success_buffer = deque(maxlen=algorithm._stats_window_size)
