"""What `scripts/compare.py` makes of its runs: a table with intervals over seeds, and the figure of reward over KL."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from scripts.experiments import tables
from scripts.experiments.tables import readable
from scripts.reports.runs import TOKENS, read_run
from textgym.evaluation import Frontier, best_of_n_reward
from textgym.evaluation.evaluation import within_range
from textgym.evaluation.sampling import best_of_n_rewards
from textgym.evaluation.statistics import Interval, t_quantile
from textgym.matching import Estimate

UNTRAINED = "untrained"
MEASURES = {
    "reward": ("reward", "{:+.3f}"),
    "kl_to_reference": ("KL to the reference", "{:.2f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
}
"""The columns of the table: fields of `textgym.evaluation.Evaluation`, their headings and formats."""
OF_FRONTIER = {
    "share_of_attainable": ("share of the attainable", "{:.2f}"),
    "times_least_kl": ("times the least KL", "{:.2f}"),
}
"""Columns that need a frontier: the gain in reward by the most that is possible at this KL, and the KL by the least."""
BEST_OF = 4, 16
"""Choices of best-of-n whose distance from the frontier is told: the search that needs no training."""
AT_MOST = "Best of n: of texts of the untrained model; its KL is the most that it can be."
COLORS = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
"""Told apart by colour-blind readers too (Okabe and Ito 2008)."""


def measured(record: dict[str, Any], measure: str) -> float:
    """One of `MEASURES`, or a component of the reward, in the record of a finished run."""
    evaluation = record["evaluation"]
    value = evaluation[measure] if measure in evaluation else evaluation["components"][measure]
    return value["value"] if isinstance(value, dict) else value


def in_words(record: dict[str, Any]) -> str:
    """A finished run in a line."""
    found = [f"{heading} {Interval.of([measured(record, m)]).text(form)}" for m, (heading, form) in MEASURES.items()]
    return f"{', '.join(found)}; {record['tokens']:,} tokens in {record['seconds']:.0f} s"


def curve(folders: Sequence[Path], most: int = 20) -> np.ndarray:
    """KL and reward of training rollouts, means over equal spans of tokens and over seeds.

    Args:
        folders: of the run of each seed.
        most: spans at most; fewer where the shortest log has fewer rollouts.

    Returns:
        (spans, 2); spans without a rollout are left out.
    """
    tables = [logged(folder, TOKENS, "rollout/kl_to_reference", "rollout/reward") for folder in folders]
    spans, rows = min(most, *map(len, tables)), np.concatenate(tables)  # (rollouts, 3)
    index = np.ceil(rows[:, 0] / rows[:, 0].max() * spans)
    return np.array([rows[index == i, 1:].mean(0) for i in np.unique(index)])


def logged(folder: Path, *names: str) -> np.ndarray:
    """Columns of the log of a run, (rollouts, columns)."""
    columns = read_run(folder).log
    return np.column_stack([columns[name] for name in names])


def distances(frontier: Frontier, rewards: torch.Tensor, kls: torch.Tensor) -> dict[str, Estimate]:
    """How far a policy is from a frontier, by `OF_FRONTIER`, where the frontier reaches so far."""
    measures = {"share_of_attainable": frontier.share, "times_least_kl": frontier.times_least}
    found = {name: within_range(measure, rewards, kls) for name, measure in measures.items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


class Comparison:
    """The finished runs of all entries.

    Attributes:
        summary: for each entry, the untrained model first, the interval of each measure; those of `OF_FRONTIER` where
            the frontier reaches so far; none of an entry whose runs all failed.
        best_of_n: the same of `BEST_OF`, as far as there are samples of the untrained model for it.
        failed: the records of failed runs.

    Args:
        records: what the runs' run.json hold.
        out: the folder that has them, and takes the report.
        frontier: over the untrained model.
    """

    def __init__(self, records: list[dict[str, Any]], out: Path, frontier: Frontier | None = None):
        self.out, self.frontier = out, frontier
        self.records = [record for record in records if "error" not in record]
        self.failed = [record for record in records if "error" in record]
        self.seeds = len({record["seed"] for record in records})
        self.arguments = records[-1].get("arguments", {})
        self.summary = {entry: self.measures(entry) for entry in dict.fromkeys(record["agent"] for record in records)}
        self.best_of_n = self.of_best_of_n()

    def measures(self, entry: str) -> dict[str, Interval]:
        """The intervals of an entry's measures over its finished runs."""
        found = {measure: self.values(entry, measure) for measure in MEASURES}
        return {m: Interval.of(values) for m, values in found.items() if values} | self.from_frontier(entry)

    def values(self, entry: str, measure: str) -> list[float]:
        """A measure of an entry's runs, one number per seed."""
        return [measured(record, measure) for record in self.records if record["agent"] == entry]

    def from_frontier(self, entry: str) -> dict[str, Interval]:
        """How far an entry is from the frontier, its seeds being independent and the frontier's samples counted too."""
        if self.frontier is None or entry == UNTRAINED or not self.values(entry, "reward"):
            return {}
        rewards, kls = (torch.tensor(self.values(entry, m), dtype=torch.float64) for m in ("reward", "kl_to_reference"))
        quantile = t_quantile(len(kls) - 1) if len(kls) > 1 else None
        return {
            name: Interval(estimate.value, None if quantile is None else quantile * estimate.standard_error)
            for name, estimate in distances(self.frontier, rewards, kls).items()
        }

    def of_best_of_n(self) -> dict[str, dict[str, Interval]]:
        """What the best of n texts of the untrained model is; its KL is the most that it can be.

        So the share of the attainable is the least, and times the least KL the most. The frontier's error counts as if
        it were of other samples, which makes both intervals wider than they need to be.
        """
        if self.frontier is None:
            return {}
        found = {}
        for n in (n for n in BEST_OF if n <= self.frontier.rewards.shape[1]):
            kl, reward = best_of_n_reward(self.frontier.rewards, n)
            rewards = best_of_n_rewards(self.frontier.rewards, n)  # (C,)
            numbers = {"reward": reward} | distances(self.frontier, rewards, torch.full_like(rewards, kl))
            found[f"best of {n}"] = {
                # one prompt shows no error
                name: Interval(e.value, None if math.isnan(e.standard_error) else (e.high - e.low) / 2)
                for name, e in numbers.items()
            } | {"kl_to_reference": Interval(kl, None)}
        return found

    @property
    def env_id(self) -> str:
        """Where was trained."""
        return self.arguments["env"]["env_id"]

    @property
    def title(self) -> str:
        """Where, and how long, was trained."""
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
        return f"{self.env_id}, {self.arguments['total_timesteps']:,} tokens, {seeds}"

    @property
    def caption(self) -> str:
        """What the table's numbers are."""
        what = "mean and 95% interval over seeds" if self.seeds > 1 else "mean"
        texts = self.arguments["evaluation_episodes"]
        return f"{self.title}: {what} of {texts} fresh texts each; KL in nats per text"

    @property
    def failures(self) -> list[str]:
        """A line for each failed run, which is in no number."""
        return [f"failed: {r['agent']}, seed {r['seed']} ({r['folder']}): {r['error']}" for r in self.failed]

    def cells(self, columns: dict[str, tuple[str, str]]) -> list[list[str]]:
        """The rows of a table with these columns, as text."""
        return [
            [entry, *(found[m].text(form) if m in found else "-" for m, (_, form) in columns.items())]
            for entry, found in (self.summary | self.best_of_n).items()
        ]

    def tables(self) -> list[Table]:
        """The tables for the terminal: what was measured, and how far that is from the frontier."""
        made = [tables.terminal(self.caption, head(MEASURES), self.cells(MEASURES))]
        if self.frontier is not None:
            made.append(tables.terminal(self.frontier.range, head(OF_FRONTIER), self.cells(OF_FRONTIER)))
        return made

    def markdown(self) -> str:
        """All in one table, as Markdown."""
        columns = MEASURES if self.frontier is None else MEASURES | OF_FRONTIER
        notes = [f"For the last two columns: {self.frontier.range}."] if self.frontier else []
        notes += [AT_MOST] if self.best_of_n else []
        notes += [f"{failure}." for failure in self.failures]
        parts = [f"{self.caption}.\n", tables.markdown(head(columns), self.cells(columns)), *notes]
        return "\n".join(parts).rstrip("\n") + "\n"

    def write(self) -> str:
        """Write compare.json, compare.md and compare.png; returns a line that names them."""
        table = {e: {m: vars(i) for m, i in intervals.items()} for e, intervals in self.summary.items()}
        best = {name: {m: vars(i) for m, i in intervals.items()} for name, intervals in self.best_of_n.items()}
        report = {"caption": self.caption, "table": table, "best_of_n": best, "runs": self.records + self.failed}
        (self.out / "compare.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (self.out / "compare.md").write_text(self.markdown(), encoding="utf-8")
        self.draw(self.out / "compare.png")
        return f"written: {self.out / 'compare'}.json, .md and .png"

    def draw(self, file: Path) -> None:
        """Each entry's way from the untrained model to what it ended with: intervals, and a dot for each seed."""
        from matplotlib.figure import Figure

        points = {entry: (i["kl_to_reference"], i["reward"]) for entry, i in self.summary.items() if i}
        start = points.pop(UNTRAINED, None)  # its runs may have failed
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        if self.frontier is not None:
            show_frontier(axes, self.frontier)
        for number, (entry, (kl, reward)) in enumerate(points.items()):
            color, marker = COLORS[number % len(COLORS)], "osD^vPX"[number % 7]
            folders = [self.out / r["folder"] for r in self.records if r["agent"] == entry]
            ends = [[x.mean for x in point] for point in (start, (kl, reward)) if point is not None]
            axes.plot(*np.vstack([*ends[:-1], curve(folders), ends[-1]]).T, color=color, alpha=0.7, linewidth=2)
            axes.scatter(self.values(entry, "kl_to_reference"), self.values(entry, "reward"), 14, color, alpha=0.7)
            show_interval(axes, kl, reward, color, marker, textwrap.fill(readable(entry), 36))
        if start is not None:
            show_interval(axes, *start, "black", "*", UNTRAINED)
        axes.set(xlabel="KL to the reference (nats per text)", ylabel="reward", title=self.title)
        axes.grid(alpha=0.3)
        axes.legend(*axes.get_legend_handles_labels(), frameon=False)
        figure.savefig(file, dpi=150)


def head(columns: dict[str, tuple[str, str]]) -> list[str]:
    """The headings of a table."""
    return ["agent", *(heading for heading, _ in columns.values())]


def show_frontier(axes: Any, frontier: Frontier) -> None:
    """The most reward at each KL with its interval, as far as the samples support it, and best-of-n."""
    kls = [0.0, *(point.kl for point in frontier.curve())]
    reward, _, low, high = np.array([frontier.reward_within(kl) for kl in kls]).T
    axes.fill_between(kls, low, high, color="grey", alpha=0.3, linewidth=0)
    axes.plot(kls, reward, color="black", linewidth=1, label="the most at each KL")
    best = [best_of_n_reward(frontier.rewards, 2**i) for i in range(frontier.rewards.shape[1].bit_length())]
    line = [(kl, reward.value) for kl, reward in best]
    axes.plot(*zip(*line, strict=True), "k.:", linewidth=1, label="best of 1, 2, 4, ...")


def show_interval(axes: Any, x: Interval, y: Interval, color: str, marker: str, label: str) -> None:
    """A point with the intervals of both coordinates."""
    bars = {"xerr": x.half_width, "yerr": y.half_width, "elinewidth": 1, "capsize": 3}
    axes.errorbar(x.mean, y.mean, **bars, linestyle="none", color=color)
    axes.scatter(x.mean, y.mean, 120, color, marker=marker, label=label, edgecolor="white", zorder=3)
