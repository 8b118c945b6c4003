"""What `scripts/compare.py` makes of its runs: a table with intervals over seeds, and the figure of reward over KL."""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from textgym.evaluation.statistics import Interval

UNTRAINED = "untrained"
MEASURES = {
    "reward": ("reward", "{:+.3f}"),
    "kl_to_reference": ("KL to the reference", "{:.2f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
}
"""The columns of the table: fields of `textgym.evaluation.Evaluation`, their headings and formats."""
COLORS = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
"""Told apart by colour-blind readers too (Okabe and Ito 2008)."""


def measured(record: dict[str, Any], measure: str) -> float:
    """The value of one of `MEASURES` in the record of a finished run."""
    value = record["evaluation"][measure]
    return value["value"] if isinstance(value, dict) else value


def in_words(record: dict[str, Any]) -> str:
    """A finished run in a line."""
    found = [f"{heading} {Interval.of([measured(record, m)]).text(form)}" for m, (heading, form) in MEASURES.items()]
    return f"{', '.join(found)}; {record['tokens']:,} tokens in {record['seconds']:.0f} s"


def readable(entry: str) -> str:
    """An entry with spaces where a line may break."""
    return re.sub(r"([:,])(?! )", r"\1 ", entry)


def curve(logs: Sequence[Path], most: int = 20, measures: Sequence[str] = ("kl_to_reference", "reward")) -> np.ndarray:
    """Measures of training rollouts, means over equal spans of tokens and over seeds.

    Args:
        logs: the progress.csv of each seed.
        most: spans at most; fewer where the shortest log has fewer rollouts.
        measures: what is logged of rollouts.

    Returns:
        (spans, measures); spans without a rollout are left out.
    """
    columns = "time/total_timesteps", *(f"rollout/{name}" for name in measures)
    tables = []
    for log in logs:
        with log.open(encoding="utf-8") as file:
            tables.append(np.array([[float(row[name]) for name in columns] for row in csv.DictReader(file)]))
    spans, rows = min(most, *map(len, tables)), np.concatenate(tables)  # (rollouts, 1 + measures)
    index = np.ceil(rows[:, 0] / rows[:, 0].max() * spans)
    return np.array([rows[index == i, 1:].mean(0) for i in np.unique(index)])


class Comparison:
    """The finished runs of all entries.

    Attributes:
        summary: for each entry, the untrained model first, the interval of each measure.

    Args:
        records: what the runs' run.json hold.
        out: the folder that has them, and takes the report.
    """

    def __init__(self, records: list[dict[str, Any]], out: Path):
        self.records, self.out = records, out
        self.seeds = len({record["seed"] for record in records})
        self.entries = list(dict.fromkeys(record["agent"] for record in records))
        self.summary = {
            entry: {measure: Interval.of(self.values(entry, measure)) for measure in MEASURES} for entry in self.entries
        }

    def values(self, entry: str, measure: str) -> list[float]:
        """A measure of an entry's runs, one number per seed."""
        return [measured(record, measure) for record in self.records if record["agent"] == entry]

    @property
    def title(self) -> str:
        """Where, and how long, was trained."""
        arguments = self.records[-1]["arguments"]
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
        return f"{arguments['env']['env_id']}, {arguments['total_timesteps']:,} tokens, {seeds}"

    @property
    def caption(self) -> str:
        """What the table's numbers are."""
        what = "mean and 95% interval over seeds" if self.seeds > 1 else "mean"
        texts = self.records[-1]["arguments"]["evaluation_episodes"]
        return f"{self.title}: {what} of {texts} fresh texts each; KL in nats per text"

    def cells(self) -> list[list[str]]:
        """The table's rows as text."""
        formats = {name: format for name, (_, format) in MEASURES.items()}
        return [
            [entry, *(interval.text(formats[name]) for name, interval in intervals.items())]
            for entry, intervals in self.summary.items()
        ]

    def table(self) -> Table:
        """The table for the terminal."""
        table = Table(title=escape(self.caption), title_justify="left")
        table.add_column("agent", overflow="fold")
        for heading, _ in MEASURES.values():
            table.add_column(heading, justify="right", no_wrap=True)
        for entry, *numbers in self.cells():
            table.add_row(escape(readable(entry)), *numbers)
        return table

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [["agent", *(heading for heading, _ in MEASURES.values())], ["---", *["--:"] * len(MEASURES)]]
        lines += [[f"`{entry}`", *numbers] for entry, *numbers in self.cells()]
        return f"{self.caption}.\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def write(self) -> str:
        """Write compare.json, compare.md and compare.png; returns a line that names them."""
        table = {e: {m: vars(i) for m, i in intervals.items()} for e, intervals in self.summary.items()}
        report = {"caption": self.caption, "table": table, "runs": self.records}
        (self.out / "compare.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (self.out / "compare.md").write_text(self.markdown(), encoding="utf-8")
        self.draw(self.out / "compare.png")
        return f"written: {self.out / 'compare'}.json, .md and .png"

    def draw(self, file: Path) -> None:
        """Each entry's way from the untrained model to what it ended with: intervals, and a dot for each seed."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        start, *others = ((e, i["kl_to_reference"], i["reward"]) for e, i in self.summary.items())
        figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
        for number, (entry, kl, reward) in enumerate(others):
            color, marker = COLORS[number % len(COLORS)], "osD^vPX"[number % 7]
            logs = [self.out / r["folder"] / "progress.csv" for r in self.records if r["agent"] == entry]
            line = np.vstack([(start[1].mean, start[2].mean), curve(logs), (kl.mean, reward.mean)])
            axes.plot(*line.T, color=color, alpha=0.7, linewidth=2)
            axes.scatter(self.values(entry, "kl_to_reference"), self.values(entry, "reward"), 14, color, alpha=0.7)
            show_interval(axes, kl, reward, color, marker, textwrap.fill(readable(entry), 36))
        show_interval(axes, *start[1:], "black", "*", start[0])
        axes.set(xlabel="KL to the reference (nats per text)", ylabel="reward", title=self.title)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(file, dpi=150)
        plt.close(figure)


def show_interval(axes: Any, x: Interval, y: Interval, color: str, marker: str, label: str) -> None:
    """A point with the intervals of both coordinates."""
    bars = {"xerr": x.half_width, "yerr": y.half_width, "elinewidth": 1, "capsize": 3}
    axes.errorbar(x.mean, y.mean, **bars, linestyle="none", color=color)
    axes.scatter(x.mean, y.mean, 120, color, marker=marker, label=label, edgecolor="white", zorder=3)
