"""What reward functions are told of the training around their env, and what they tell it beside rewards.

It is what TRL's trainers pass as `trainer_state`, `log_metric` and `log_extra`. Without a training the first is None,
and what the others were given waits in `env.unwrapped.task.trainer`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from textgym.arguments import Finite, check_argument

EXTRAS_KEPT = 1000
"""Newest values of each column that `log_extra` was given that are kept."""


@dataclass(frozen=True)
class TrainerState:
    """How far a training was when the present rollout began.

    Attributes:
        global_step: gradient steps so far; the name that transformers' `TrainerState` has for them.
        num_timesteps: tokens so far.
        total_timesteps: tokens that the training is to have.
    """

    global_step: int
    num_timesteps: int
    total_timesteps: int

    @property
    def progress(self) -> float:
        """The share of the tokens that are made, in [0, 1]."""
        return min(1.0, self.num_timesteps / self.total_timesteps)


class Trainer:
    """What one env's scorers and the training around them tell each other.

    Attributes:
        state: how far the training is; None where there is none.
        extras: column -> the newest values that `log_extra` was given, the oldest first.
        seconds: that the scorer has taken so far.
        overlapped: those of them in which the env went on.
    """

    def __init__(self) -> None:
        self.state: TrainerState | None = None
        self.seconds = self.overlapped = 0.0
        self.extras: dict[str, deque[Any]] = {}
        self._metrics: dict[str, tuple[float, int]] = {}  # name -> sum and number of the values

    def log_metric(self, name: str, value: float) -> None:
        """Report a number beside the rewards; an agent logs the mean over a rollout's calls as `scorer/<name>`.

        Raises:
            ValueError: the name is no text, or the value no finite number.
        """
        check_argument("the name of a metric", name, str)
        number = value.item() if hasattr(value, "item") else value  # of numpy or torch
        check_argument(f"the metric {name!r}", number, Finite)
        total, count = self._metrics.get(name, (0.0, 0))
        self._metrics[name] = total + number, count + 1

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Keep something of each text, such as the answer that was read in it, in `extras`.

        Raises:
            ValueError: the column's name is no text.
        """
        check_argument("the name of an extra column", column, str)
        self.extras.setdefault(column, deque(maxlen=EXTRAS_KEPT)).extend(values)


def take_metrics(trainers: Iterable[Trainer]) -> dict[str, float]:
    """Name -> mean of all that was reported since the last time; it is forgotten."""
    sums: dict[str, tuple[float, int]] = {}
    for trainer in trainers:
        for name, (total, count) in trainer._metrics.items():
            known = sums.get(name, (0.0, 0))
            sums[name] = known[0] + total, known[1] + count
        trainer._metrics.clear()
    return {name: total / count for name, (total, count) in sums.items()}
