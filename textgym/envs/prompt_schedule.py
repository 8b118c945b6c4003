"""Which prompts the rows of a vector env start from."""

from __future__ import annotations

import numpy as np

from textgym.mdp import IntArray
from textgym.prompt_table import PromptTable


class PromptSchedule:
    """Which prompt each row starts from: round n holds the n-th prompt of every group.

    Rounds are drawn in order, when the fastest row needs one, so the prompts do not depend on which rows end first.

    Attributes:
        rounds: (rounds that some row still needs, groups) prompt ids.
    """

    def __init__(self, prompts: PromptTable, num_envs: int, num_generations: int):
        self._prompts = prompts
        self._groups = np.arange(num_envs) // num_generations  # (N,)
        self.restart()

    def restart(self) -> None:
        """Forget all rounds; every row starts at round 0."""
        self._episodes = np.zeros(len(self._groups), np.int64)  # (N,) rounds each row has used
        self.rounds = np.empty((0, self._groups[-1] + 1), np.int64)
        self._dropped = 0

    def advance(self, rows: IntArray, rng: np.random.Generator) -> IntArray:
        """The next prompt ids of `rows`, (len(rows),)."""
        if not len(rows):
            return rows
        wanted, groups = self._episodes[rows], self._groups[rows]
        while True:
            try:
                chosen = self.rounds[wanted - self._dropped, groups]
            except IndexError:  # the fastest row needs a round that is not drawn yet
                self._draw_round(rng)
            else:
                self._episodes[rows] = wanted + 1
                return chosen

    def _draw_round(self, rng: np.random.Generator) -> None:
        """Append the next round, and drop those that every row has used."""
        used, self._dropped = self._dropped, int(self._episodes.min())
        drawn = self._prompts.draw(rng, self.rounds.shape[1])
        self.rounds = np.concatenate([self.rounds[self._dropped - used :], drawn[None]])
