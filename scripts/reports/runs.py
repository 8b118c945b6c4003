"""What the folder of a run tells: its log, its evaluations, and what was trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textgym.evaluation.history import STEP, numbers
from textgym.training.state import checkpoint_path

TOKENS = "time/total_timesteps"
PANELS = {
    "reward": ("reward", "rollout/reward", "reward"),
    "kl": ("KL to the reference (nats per text)", "rollout/kl_to_reference", "kl_to_reference"),
    "entropy": ("entropy (nats per token)", "train/entropy", "entropy"),
    "length": ("length (tokens per text)", "rollout/ep_len_mean", "length"),
}
"""What is drawn over the tokens of a training: the title, the column of the log, and the number of an evaluation."""


@dataclass(frozen=True)
class Run:
    """A run of `scripts/train.py`, or of another script that logs as it does.

    Attributes:
        name: the folder's.
        log: the columns of progress.csv, (rollouts,) float each by name; NaN where a row has no such number.
        evaluations: the lines of evaluations.jsonl, if there is such a file.
        state: algorithm.json of the newest checkpoint, if there is one.
    """

    name: str
    log: dict[str, np.ndarray]
    evaluations: list[dict[str, Any]]
    state: dict[str, Any]

    def rollouts(self, column: str, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """A column over tokens, (rollouts,) each, or, of more than `most`, means of spans of equally many tokens."""
        if column not in self.log:
            return np.empty(0), np.empty(0)
        known = ~np.isnan(self.log[column])
        tokens, values = self.log[TOKENS][known], self.log[column][known]
        spans = tokens if len(tokens) <= most else np.ceil(tokens / tokens.max() * most)
        return tuple(np.array([x[spans == i].mean() for i in np.unique(spans)]) for x in (tokens, values))  # type: ignore[return-value]

    def evaluated(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A number of the evaluations over tokens, (evaluations,) each."""
        found = [(row[STEP], numbers(row)[name]) for row in self.evaluations if name in numbers(row)]
        return tuple(np.array(found, float).reshape(-1, 2).T)  # type: ignore[return-value]


def read_run(path: Path) -> Run:
    """Read the folder of a run.

    Raises:
        FileNotFoundError: there is no progress.csv.
        ValueError: it has no rollouts, or is no log.
    """
    file = path / "progress.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no folder of a run: {problem(path)}")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or TOKENS not in rows[0]:
        raise ValueError(f"{str(file)!r} has no rollouts")
    try:
        log = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is no log of a training: {error}") from error
    evaluations = path / "evaluations.jsonl"
    lines_of = evaluations.read_text(encoding="utf-8").splitlines() if evaluations.is_file() else []
    state = checkpoint_path(path / "checkpoint") / "algorithm.json"
    return Run(
        path.name,
        log,
        [json.loads(line) for line in lines_of],
        json.loads(state.read_text(encoding="utf-8")) if state.is_file() else {},
    )


def problem(path: Path) -> str:
    """Why a path is no folder of a run, and which one may be meant."""
    if (around := next((p for p in path.parents if (p / "progress.csv").is_file()), None)) is not None:
        return f"it is inside of one; did you mean {str(around)!r}?"
    if not path.exists():
        return "there is no such folder"
    if path.is_file():
        return "it is a file"
    inside = sorted(str(log.parent) for log in path.glob("*/progress.csv"))
    return "it has no progress.csv" + (
        f"; did you mean one of the runs in it, such as {inside[0]!r}?" if inside else ""
    )


def runs_among(paths: Iterable[Path], figure: Path) -> tuple[list[Path], list[Path]]:
    """The runs among what a shell makes of `runs/compare/*`, and what is left out because other scripts wrote it there.

    That is what `scripts/compare.py` writes beside its runs, the untrained model, which has no training, and the figure
    of an earlier call. Any other path that is no run stays among the runs, where reading it is an error.
    """
    runs: list[Path] = []
    others: list[Path] = []
    for path in paths:
        compared = (path.parent / "compare.json").is_file() or (path / "run.json").is_file()
        own = path.exists() and (compared or path.resolve() == figure.resolve())
        (others if own and not (path / "progress.csv").is_file() else runs).append(path)
    return runs, others
