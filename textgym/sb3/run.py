"""A training in a run's folder: it saves itself between rollouts, and whatever ends it, it can go on from there."""

from __future__ import annotations

import signal
import time
import warnings
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from textgym.arguments import CheckedArguments, Count, Positive
from textgym.sb3.callbacks import learn
from textgym.sb3.resumable import ResumableAlgorithm
from textgym.training.run import RunFolder


class RunCheckpoints(CheckedArguments, BaseCallback):
    """Saves an agent to a run's folder between two rollouts; a training that goes on from there repeats nothing.

    It should be the first callback, so that others, which act when a rollout begins, do so again in a resumed training.
    A checkpoint that cannot be written, because the disk is full, say, is a warning.

    Example:
        >>> from textgym.sb3.run import RunCheckpoints
        >>> from textgym.training.run import open_run
        >>> with open_run(Path("runs/mine"), resume=False) as run:  # doctest: +SKIP
        ...     agent.learn(10_000, callback=RunCheckpoints(run, minutes=5))

    Args:
        run: the folder.
        every: tokens between two checkpoints; None counts the time alone.
        minutes: between two checkpoints.
    """

    model: ResumableAlgorithm

    def __init__(self, run: RunFolder, every: Count | None = None, minutes: Positive = 10.0):
        super().__init__()
        self.run, self.every, self.minutes = run, every, minutes
        self._newest: int | None = None  # timesteps of the checkpoint that was written last

    def _on_training_start(self) -> None:
        self._steps, self._time = self.model.num_timesteps, time.monotonic()

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps - self._steps
        if (self.every is not None and steps >= self.every) or time.monotonic() - self._time >= 60 * self.minutes:
            self.try_to_save()

    def _on_step(self) -> bool:
        return True

    def save(self) -> None:
        """Write a checkpoint of the last state between two rollouts.

        Raises:
            OSError: it could not be written.
        """
        self._steps, self._time = self.model.num_timesteps, time.monotonic()
        steps = self.model.resume_from.num_timesteps
        if steps != self._newest:
            self.run.save(self.model.save, steps)
            self._newest = steps

    def try_to_save(self) -> None:
        """`save`, with a warning in place of an error."""
        try:
            self.save()
        except OSError as error:
            warnings.warn(f"no checkpoint at {self._steps} tokens, training goes on: {error}", stacklevel=2)


def train_run(
    agent: ResumableAlgorithm, total_timesteps: int, saving: RunCheckpoints, *callbacks: BaseCallback, **kwargs: Any
) -> signal.Signals | None:
    """Train until the run has `total_timesteps`, those before a resumed checkpoint included, and save what there is.

    A signal, or an error while episodes are sampled, such as that of a scorer whose service is down, leaves the last
    state between two rollouts. A loss that is not finite, or another error of an update, leaves the checkpoint that was
    written last.

    Args:
        agent: new, or loaded from the run's checkpoint; its logger is set.
        total_timesteps: tokens, more than the agent has.
        saving: when checkpoints are written, and where.
        *callbacks: further ones.
        **kwargs: of `textgym.sb3.callbacks.learn`.

    Returns:
        the signal that ended the training, if one did.
    """
    try:
        steps = total_timesteps - agent.resume_from.num_timesteps
        stopped = learn(agent, steps, saving, *callbacks, reset_num_timesteps=False, **kwargs)
    except FloatingPointError:
        raise
    except Exception:
        if agent.is_sampling:
            saving.try_to_save()
        raise
    saving.save()
    return stopped
