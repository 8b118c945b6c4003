"""Prompt sources that make prompts from a seed, at levels, with a held-out part that no seed brings into training."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal, Protocol

from textgym.arguments import Count, Seed
from textgym.splits import Split, in_split

Level = Literal[1, 2, 3]
Draw = Callable[[random.Random, int], tuple[str, dict[str, Any]]]
"""A generator and a level to a prompt with its columns, and before it a key: prompts of one key ask the same."""

SIZES = {"train": 4096, "test": 512}
"""How many prompts a part has where no size is given, if there are so many."""
PATIENCE = 10_000
"""Draws in a row that bring nothing new, after which a part counts as exhausted."""


class PromptSource(Protocol):
    """What a row of `PROMPT_SOURCES` names; these are the arguments of every generated source."""

    def __call__(
        self, level: Level = ..., split: Split = ..., size: Count | None = ..., seed: Seed = ...
    ) -> list[dict[str, Any]]:
        """Rows of prompts with their columns.

        Args:
            level: how hard they are.
            split: the part for training, or the one for tests; a prompt is in the same part at every seed and size.
            size: how many different ones; None for `SIZES`, or all of a part that has fewer.
            seed: which ones, and in which order.

        Raises:
            ValueError: the part has fewer than `size`.
        """


def generated(draw: Draw, default_level: Level) -> PromptSource:
    """The prompt source of a family of tasks."""

    def prompts(
        level: Level = default_level, split: Split = "train", size: Count | None = None, seed: Seed = 0
    ) -> list[dict[str, Any]]:
        rng = random.Random(f"{split} {seed}")
        found: dict[str, dict[str, Any]] = {}
        wanted, in_vain = size or SIZES[split], 0
        while len(found) < wanted and in_vain < PATIENCE:
            key, row = draw(rng, level)
            in_vain += 1
            if key not in found and in_split(key, split):
                found[key], in_vain = row, 0
        if size is not None and len(found) < size:
            raise ValueError(f"size is {size}, but level {level} has only {len(found)} prompts for split={split!r}")
        return list(found.values())

    return prompts
