"""`call` and `get_attr`, by which Gymnasium's vector envs reach into their single envs, for one that has none in it."""

from __future__ import annotations

from typing import Any

import numpy as np

SINGLE = {"observation_space": "single_observation_space", "action_space": "single_action_space"}
"""Attributes that a single env has under another name than the vector env has them."""


class Calls:
    """The two methods of `SyncVectorEnv`, answered by the vector env itself."""

    num_envs: int

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What the method `name` of each row's single env would return, or the attribute of that name; N of them.

        Of an array with N rows, such as `action_masks()`, and of `render()`, each gets its own; anything else is the
        same object N times.

        Raises:
            AttributeError: there is no such method or attribute.
            ValueError: the method is `reset`, `step` or `close`, as in `AsyncVectorEnv`.
        """
        if name in ("reset", "step", "close"):
            raise ValueError(f"{name!r} is not for call(); use {name}() of the vector env")
        found = getattr(self, SINGLE.get(name, name))
        value = found(*args, **kwargs) if callable(found) else found
        by_row = isinstance(value, np.ndarray) and value.shape[:1] == (self.num_envs,) or name == "render"
        return tuple(value) if by_row and value is not None else (value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute `name` of each row's single env, or what its method of that name returns; see `call`."""
        return self.call(name)
