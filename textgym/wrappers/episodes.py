"""What the wrappers share: the task beneath an env, and what a vector env says of the episodes that end in a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from textgym.envs.task import TextTask
from textgym.mdp import BoolArray


def task_of(env: Any) -> TextTask:
    """The tokenizer, prompts, scorer and MDP of an env.

    Raises:
        ValueError: it is not one of TextGym's; of a vector env, not the native one.
    """
    task = getattr(env.unwrapped, "task", None)
    if not isinstance(task, TextTask):
        raise ValueError(
            f"{env} is not a TextGym env: it has no TextMDP. The wrappers of vector envs need the native one, which "
            "gym.make_vec gives; other vector envs take single envs that are wrapped already"
        )
    return task


def with_end_values(info: dict[str, Any], ended: BoolArray, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """A vector env's info with further values of the episodes that end in this step; what is there already stays.

    Args:
        info: of a step; under SameStep such values belong to its `final_info`.
        ended: (N,) which rows' episodes end.
        values: (N, ...) by name; those of other rows become 0.
    """
    if not ended.any():
        return info
    entries: dict[str, Any] = {}
    for name, array in values.items():
        entries[name], entries[f"_{name}"] = np.zeros_like(array), ended.copy()
        entries[name][ended] = array[ended]
    if "final_info" in info:
        return {**info, "final_info": entries | info["final_info"]}
    return entries | info
