"""Scoring behind the env: rows that have ended are scored while others are still written."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from textgym.envs.task import TextTask
from textgym.mdp import BoolArray, IntArray
from textgym.scorers import Scores


class DeferredScores:
    """The scores of rows that have ended, computed by a thread of their own.

    It is one thread, so the scorer is asked what it would have been asked otherwise, in the same order: about the same
    rows together, those that ended first before the others.

    Args:
        task: whose scorer is asked.
    """

    def __init__(self, task: TextTask):
        self._task, self._before, self._waited = task, task.trainer.seconds, 0.0
        self._thread = ThreadPoolExecutor(1, "textgym-scores")
        self._jobs: list[tuple[IntArray, Future[Scores]]] = []

    def ask(
        self, observations: IntArray, prompt_ids: IntArray, rows: IntArray, lengths: IntArray, ended: BoolArray
    ) -> None:
        """Have rows scored; the arguments are those of `TextTask.score`.

        Raises:
            ScorerError: what was asked before has failed.
        """
        for _, job in self._jobs:
            if job.done():
                job.result()
        task = replace(self._task, prompts=self._task.prompts.holding(prompt_ids))
        job = self._thread.submit(task.score, observations, prompt_ids, rows, lengths, ended)
        self._jobs.append((rows, job))

    def join(self) -> list[tuple[IntArray, Scores]]:
        """Wait for all that was asked: the rows and their scores, in the order of the asking.

        Raises:
            ScorerError: some of it has failed; the first one that did.
        """
        start = time.perf_counter()
        try:
            return [(rows, job.result()) for rows, job in self._jobs]
        finally:
            self._waited += time.perf_counter() - start

    def close(self) -> None:
        """End the thread, after what it does now, and count how long it worked while nobody waited."""
        start = time.perf_counter()
        self._thread.shutdown(cancel_futures=True)
        self._waited += time.perf_counter() - start
        trainer = self._task.trainer
        trainer.overlapped += max(0.0, trainer.seconds - self._before - self._waited)


def settle(
    scored: list[tuple[IntArray, Scores]],
    places: IntArray,
    mask: BoolArray,
    rewards: np.ndarray,
    components: np.ndarray,
    component_names: tuple[str, ...],
) -> None:
    """Put deferred scores where those of the env's steps would stand, in place.

    Args:
        scored: of R episodes of each of N rows, in the order in which they ended.
        places: (2, R N) where they stand among the R and the N, in the same order.
        mask: (R, N, T) where actions stand; the last one of an episode is paid.
        rewards: (R, N, T)
        components: (R, N, C)
        component_names: C of them.
    """
    first, last = 0, mask.shape[2] - 1 - mask[:, :, ::-1].argmax(-1)  # (R, N)
    for rows, scores in scored:
        at = tuple(places[:, first : first + len(rows)])
        rewards[(*at, last[at])] = scores.rewards
        components[at] = np.stack([scores.components[name] for name in component_names], -1)
        first += len(rows)
