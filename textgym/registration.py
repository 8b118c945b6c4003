"""Registers the tasks with Gymnasium, with string entry points, so that registering imports nothing."""

from __future__ import annotations

from copy import deepcopy

import gymnasium as gym

from textgym.tasks import TASKS, Task


def register(task: Task) -> None:
    """Register a task's id, single and vector env; an id that is registered already stays as it is."""
    if task.id not in gym.registry:
        kwargs = deepcopy(dict(task.kwargs))
        gym.register(task.id, entry_point=task.env, vector_entry_point=task.vector_env, kwargs=kwargs)


def register_envs() -> None:
    """Register every task of `textgym.tasks`."""
    for task in TASKS.values():
        register(task)
