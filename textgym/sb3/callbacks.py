"""Callbacks of a training at a terminal: stop on a signal, show how it goes, let the learning rate fall.

`learn` is the training that all scripts run: under a progress bar, and with a clean end on Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from textgym.evaluation.samples import Sample, show_sample
from textgym.metrics import evenly_spaced
from textgym.sb3.episodic import EpisodicAlgorithm


def learn(
    agent: BaseAlgorithm,
    total_timesteps: int,
    *callbacks: BaseCallback,
    samples_every: int = 0,
    console: Console | None = None,
    **kwargs: Any,
) -> signal.Signals | None:
    """Train with a progress bar, until SIGINT or SIGTERM at the latest. Only the main thread can receive signals.

    Args:
        agent: any algorithm of stable-baselines3.
        total_timesteps: tokens.
        *callbacks: further ones.
        samples_every: updates between printed samples, for an `EpisodicAlgorithm`; 0 prints none.
        console: where the bar and the samples go; standard output by default.
        **kwargs: further arguments of the agent's `learn`.

    Returns:
        the signal that ended the training, None where it ended by itself or by a callback.
    """
    stop = StopOnSignal()
    everything = CallbackList([stop, ShowProgress(samples_every, console), *callbacks])
    try:
        agent.learn(total_timesteps, callback=everything, **kwargs)
    finally:
        everything.on_training_end()  # also where the training raised: the bar ends, the signals act as before
    return stop.received


class StopOnSignal(BaseCallback):
    """Ends the training after the current env step on SIGINT or SIGTERM; a second signal acts as usual."""

    received: signal.Signals | None = None
    _previous: Mapping[int, Any] = {}

    def _on_training_start(self) -> None:
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
        self._on_training_end()

    def _on_step(self) -> bool:
        return self.received is None

    def _on_training_end(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


class ShowProgress(BaseCallback):
    """A progress bar with reward and, where there is one, KL to the reference; and samples now and then.

    Args:
        samples_every: updates between printed samples; 0 prints none.
        console: where everything goes; standard output by default.
    """

    def __init__(self, samples_every: int = 0, console: Console | None = None):
        super().__init__()
        self.samples_every, self.rollouts = samples_every, 0
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%")
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console or Console(highlight=False))

    def _on_training_start(self) -> None:
        total = self.locals["total_timesteps"]
        self.task = self.bar.add_task("the first episodes", total=total, completed=self.num_timesteps)
        self.bar.start()

    def _on_step(self) -> bool:
        self.bar.update(self.task, completed=self.num_timesteps)
        return True

    def _on_rollout_end(self) -> None:
        values, self.rollouts = self.logger.name_to_value, self.rollouts + 1
        text = f"update {self.rollouts}"
        if "rollout/reward" in values:
            text += f"  reward {values['rollout/reward']:+.3f}"
        if "rollout/kl_to_reference" in values:
            text += f"  KL {values['rollout/kl_to_reference']:.2f} nats"
        self.bar.update(self.task, description=text)
        if self.samples_every and self.rollouts % self.samples_every == 0:
            print_samples(self.model, 3, self.bar.console)  # type: ignore[arg-type]

    def _on_training_end(self) -> None:
        if self.bar.live.is_started:
            self.bar.stop()


def print_samples(agent: EpisodicAlgorithm, count: int, console: Console) -> None:
    """Print some episodes of the newest rollout, with their rewards."""
    episodes = agent.rollout_buffer.episodes
    for i in evenly_spaced(range(len(episodes)), count):
        prompt, completion = agent.task.decode_parts(episodes.rows[i].cpu().numpy())
        show_sample(Sample(prompt, completion, episodes.rewards[i].sum().item()), console)


class Decay(BaseCallback):
    """Trains a fixed number of updates, in which the learning rate falls quadratically to 0.

    Args:
        updates: how many; `total_timesteps` should be larger than their tokens.
        learning_rate: of the first update.
    """

    def __init__(self, updates: int, learning_rate: float):
        super().__init__()
        self.updates, self.learning_rate, self.begun = updates, learning_rate, 0

    def _on_rollout_start(self) -> None:
        rate = self.learning_rate * max(1 - self.begun / self.updates, 0.0) ** 2
        self.model.lr_schedule = lambda _: rate
        self.begun += 1

    def _on_step(self) -> bool:
        return self.begun <= self.updates
