"""What the scripts do while an agent trains: stop on a signal, and show how it goes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback

from scripts.command_line import Sample, show_sample
from textgym.metrics import evenly_spaced
from textgym.sb3 import EpisodicAlgorithm

console = Console(highlight=False)


class StopOnSignal(BaseCallback):
    """Ends the training after the current env step on SIGINT or SIGTERM; a second signal acts as usual."""

    received: int | None = None
    _previous: Mapping[int, Any] = {}

    def _on_training_start(self) -> None:
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        self._on_training_end()

    def _on_step(self) -> bool:
        return self.received is None

    def _on_training_end(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class ShowProgress(BaseCallback):
    """A progress bar with reward and, where there is one, KL to the reference; and samples now and then."""

    def __init__(self, samples_every: int = 0):
        super().__init__()
        self.samples_every, self.rollouts = samples_every, 0
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%")
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console)

    def _on_training_start(self) -> None:
        total = self.locals["total_timesteps"]
        self.task = self.bar.add_task("the first episodes", total=total, completed=self.num_timesteps)
        self.bar.start()

    def _on_step(self) -> bool:
        self.bar.update(self.task, completed=self.num_timesteps)
        return True

    def _on_rollout_end(self) -> None:
        values, self.rollouts = self.logger.name_to_value, self.rollouts + 1
        text = f"update {self.rollouts}  reward {values['rollout/reward']:+.3f}"
        if "rollout/kl_to_reference" in values:
            text += f"  KL {values['rollout/kl_to_reference']:.2f} nats"
        self.bar.update(self.task, description=text)
        if self.samples_every and self.rollouts % self.samples_every == 0:
            print_samples(self.model, 3, self.bar.console)  # type: ignore[arg-type]

    def _on_training_end(self) -> None:
        if self.bar.live.is_started:
            self.bar.stop()


def print_samples(agent: EpisodicAlgorithm, count: int, to: Console = console) -> None:
    """Print some episodes of the newest rollout, with their rewards."""
    assert agent.env is not None
    task = agent.env.get_attr("task")[0]
    episodes = agent.rollout_buffer.episodes
    for i in evenly_spaced(range(len(episodes)), count):
        prompt, completion = task.decode_parts(episodes.rows[i].cpu().numpy())
        show_sample(Sample(prompt, completion, episodes.rewards[i].sum().item()), to)
