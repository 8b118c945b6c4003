"""The env and the task behind an env id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from textgym.envs import TextGenerationEnv
from textgym.envs.task import TextTask


def env_of(env_id: str, **kwargs: Any) -> TextGenerationEnv:
    """The single env of an id.

    Args:
        env_id: an id of TextGym's, or one registered with an env class of TextGym's.
        kwargs: the env's arguments.

    Raises:
        ValueError: the id is another kind of env's, has several turns, or has wrappers, which a bridge would leave out.
    """
    env: gym.Env[Any, Any] = gym.make(env_id, **kwargs)
    while isinstance(env, OrderEnforcing | PassiveEnvChecker):
        env = env.env
    if not isinstance(env, TextGenerationEnv):
        raise ValueError(f"{env_id!r} makes {env}; a bridge takes the id of a text-generation env without wrappers")
    env.mdp.refuse_turns("a bridge")
    return env


def task_of(env_id: str, **kwargs: Any) -> TextTask:
    """The task of an env id; see `env_of`."""
    return env_of(env_id, **kwargs).task


def prompt_rows(task: TextTask, size: int | None = None, seed: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Prompts of a task: each one's id, and a dict of its text, `prompt`, and its columns.

    Args:
        task: the env's.
        size: how many; None for all of the source, once each and in its order.
        seed: of the draw, with replacement as in the env, where there is a size.

    Raises:
        ValueError: there is no size, and the source has no end.
    """
    table = task.prompts
    if size is None and table.num_prompts is None:
        raise ValueError("the prompts come from a function, which has no end; say how many with size=...")
    rng = np.random.default_rng(seed)
    for i in range(table.num_prompts or 0) if size is None else range(size):
        prompt_id = i if size is None else int(table.draw(rng, 1)[0])
        yield prompt_id, table.pin(prompt_id) | {"prompt": table.texts(np.array([prompt_id]))[0]}


def column_names(task: TextTask) -> tuple[str, ...]:
    """The columns that the prompts of a task have."""
    return tuple(task.prompts.columns(task.prompts.draw(np.random.default_rng(0), 1)))
