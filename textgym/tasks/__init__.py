"""The tasks behind the env ids: each module here is a family of them, in its list `TASKS`.

A new id is a new `Task` in one of these lists, or a new module with such a list; nothing else names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from textgym.tasks.base import Feature, Task

__all__ = ["TASKS", "Feature", "Task"]


def by_id(tasks: Iterable[Task]) -> dict[str, Task]:
    """The tasks by id, sorted.

    Raises:
        ValueError: two tasks have the same id.
    """
    found: dict[str, Task] = {}
    for task in sorted(tasks, key=lambda task: task.id):
        if task.id in found:
            raise ValueError(f"two tasks have the id {task.id!r}; give one of them another")
        found[task.id] = task
    return found


FAMILIES = [module.name for module in iter_modules(__path__) if module.name != "base"]
"""The modules that hold tasks."""

TASKS = by_id(task for family in FAMILIES for task in import_module(f"{__name__}.{family}").TASKS)
"""Every task by its id."""
