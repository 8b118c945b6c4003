"""The turns of episodes in which a partner answers: what was said, and the partner's tokens behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from textgym.envs.task import TextTask
from textgym.mdp import BoolArray, IntArray


class Conversations:
    """The conversations of N rows.

    Args:
        task: whose partner answers; it has one.
        num_envs: N.
    """

    def __init__(self, task: TextTask, num_envs: int):
        self._task = task
        self._turns: list[list[str]] = [[] for _ in range(num_envs)]  # the policy's and the partner's
        self._begun = np.zeros(num_envs, np.int64)  # the completion cell in which each row's present turn begins

    def start(self, rows: IntArray) -> None:
        """Forget what was said in `rows`, which begin an episode."""
        self._begun[rows] = 0
        for row in rows.tolist():
            self._turns[row] = []

    def answer(
        self, cells: IntArray, lengths: IntArray, prompt_ids: IntArray, rows: Any, tokens: IntArray, ended: BoolArray
    ) -> None:
        """Append the partner's answers where a turn has ended and the episode has not, in place.

        Args:
            cells: (N, P + T) all rows, with their newest tokens.
            lengths: (N,) completion tokens of each; those of the answers are added.
            prompt_ids: (N,)
            rows: the n rows that have moved, as an index.
            tokens: (n,) their newest tokens.
            ended: (n,) whether they have ended; becomes True where the partner ends the episode.
        """
        mdp, moved = self._task.mdp, np.arange(len(cells))[rows]
        over, limit = mdp.is_eot[tokens], self._task.max_turn_tokens
        if limit is not None:
            over = over | (lengths[moved] - self._begun[moved] >= limit)
        for i in np.flatnonzero(over & ~ended).tolist():
            row, written = moved[i], lengths[moved[i]]
            completion = cells[row, mdp.max_prompt_tokens :]
            said = completion[self._begun[row] : written - int(mdp.is_eot[tokens[i]])]
            self._turns[row].append(self._task.decode(said))
            answer = self._task.answer(prompt_ids[row], self._turns[row], mdp.max_new_tokens - written)
            completion[written : written + len(answer)] = answer
            lengths[row] = self._begun[row] = written + len(answer)
            if mdp.is_eos[answer[-1]]:
                ended[i] = True
            else:
                self._turns[row].append(self._task.tokenizer.decode(answer))
