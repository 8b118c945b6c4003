"""What `reset` can be told: the rows that begin anew, and the prompts that they begin from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.importing import texts_in
from textgym.mdp import BoolArray, IntArray
from textgym.prompt_table import PromptTable

GENERATOR = re.compile(r"<generator object .* at 0x[0-9a-f]+>")
"""How Python prints a generator, which is what gymnasium 1.4.0's array wrappers (`NumpyToTorch`) make of a text."""


def check_options(options: dict[str, Any] | None, accepted: Sequence[str]) -> dict[str, Any]:
    """The options of a reset as a dict.

    Raises:
        ValueError: an option that is not accepted, two forms of a pinned prompt, or a text that a wrapper has spoilt.
    """
    options = options or {}
    if unknown := set(options) - set(accepted):
        raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}; accepted are {list(accepted)}")
    if len(set(options) - {"reset_mask", "episode_of"}) > 1:
        raise ValueError(f"pin a prompt by text or by ids, not both: {sorted(options)}")
    for name, value in options.items():
        if any(GENERATOR.fullmatch(text) for text in texts_in(value)):
            raise ValueError(
                f"the reset option {name!r} was a text, but a wrapper has made the name of a generator of it, as "
                "gymnasium 1.4.0's NumpyToTorch does; pin the prompt by prompt_ids, or reset the env inside the wrapper"
            )
    return options


def rows_of(options: dict[str, Any], num_envs: int) -> BoolArray:
    """The rows that begin anew, (N,) bool: those of `reset_mask`, or all.

    Raises:
        ValueError: the mask is none.
    """
    mask = options.get("reset_mask")
    if mask is None:
        return np.ones(num_envs, bool)
    if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or mask.dtype != bool or not mask.any():
        raise ValueError(f"reset_mask must be a numpy bool array of shape ({num_envs},) with a True in it")
    return mask


def owners_of(options: dict[str, Any], mask: BoolArray) -> IntArray:
    """The rows whose next episodes the rows of `mask` begin: those of `episode_of`, or each its own.

    Raises:
        ValueError: they are no rows, or one is named twice.
    """
    own = np.flatnonzero(mask)
    if (owners := options.get("episode_of")) is None:
        return own
    n = len(mask)
    if not isinstance(owners, np.ndarray) or owners.shape != (n,) or owners.dtype.kind not in "iu":
        raise ValueError(f"episode_of must be a numpy array of {n} integers, the rows whose episodes begin")
    owners = owners[own].astype(np.int64)
    if ((owners < 0) | (owners >= n)).any() or len(set(owners.tolist())) < len(own):
        raise ValueError(f"episode_of must name different rows from 0 to {n - 1} where rows begin, not {owners}")
    return owners


def pins_of(options: dict[str, Any], table: PromptTable, num_envs: int) -> IntArray | None:
    """The ids, (N,) int64, of the prompts that the rows are pinned to; None without pins.

    Raises:
        ValueError: there is not one prompt for each row, or one does not fit.
    """
    for name, add in (("prompts", table.add), ("prompt_ids", table.add_ids)):
        if name in options:
            if isinstance(options[name], str) or len(options[name]) != num_envs:
                raise ValueError(f"{name} must have one entry per row, {num_envs} in all")
            return np.array([add(prompt) for prompt in options[name]], np.int64)
    return None
