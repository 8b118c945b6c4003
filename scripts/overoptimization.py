"""Over-optimisation without noise: `python scripts/overoptimization.py` (gold reward and proxies are known exactly).

For several proxies of each kind: the gold reward along reinforcement learning's optima and along best-of-n, how well
the forms of Gao et al. (2023) describe it, and what rules to stop by would have kept of its peak. The table goes to the
terminal, a figure of one proxy of each kind to `--out`. See docs/frontier.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from scripts.experiments.comparison import COLORS
from scripts.experiments.overoptimization import Fault, Method, Problem, judged
from textgym.arguments import Count, Positive
from textgym.evaluation.statistics import Interval

COLUMNS = "proxy", "method", "peak", "KL there", "R2 of the form", "end", "second proxy", "extrapolated"


@dataclass
class Args:
    """What to compare."""

    prompts: Count = 24
    """Openings of reviews."""
    length: Count = 4
    """Words of a text at most."""
    proxies: Count = 20
    """Proxies of each kind."""
    labels: Count = 50
    """Texts whose gold reward a learned proxy is told."""
    spread: Positive = 0.3
    """Scale of the errors of the other proxies, in units of the reward."""
    out: Path = Path("runs/overoptimization")
    """Folder of the figure."""


def main(args: Args) -> Table:
    """Compute, print and draw."""
    torch.set_num_threads(1)
    problem = Problem.make(args.prompts, args.length)
    title = f"gain in gold reward, means and 95% intervals over {args.proxies} proxies of each kind"
    table = Table(title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column)
    shown = {}
    for fault in get_args(Fault):
        proxies = [problem.proxy(fault, seed, args.labels, args.spread) for seed in range(args.proxies + 1)]
        for method in get_args(Method):
            paths = [problem.path(method, *pair) for pair in zip(proxies, proxies[1:], strict=False)]
            found = [judged(path, problem.start, method) for path in paths]
            cells = [Interval.of([one[name] for one in found]).text("{:.2f}") for name in found[0]]
            table.add_row(fault, method, *cells)
            shown[fault, method] = paths[0]
    Console(width=max(Console().width, 120)).print(table)
    draw(problem, shown, args.out / "overoptimization.png")
    return table


def draw(problem: Problem, paths: dict, file: Path) -> None:
    """Gold (lines) and proxy (dotted) against KL, a panel for each kind of proxy, below the gold reward's frontier."""
    from matplotlib.figure import Figure

    faults = get_args(Fault)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(faults), sharey=True)
    points = problem.best().curve()
    for axes, fault in zip(panels, faults, strict=True):
        axes.plot([p.kl for p in points], [p.reward for p in points], "k", linewidth=1, label="most at each KL")
        for color, method in zip(COLORS, get_args(Method), strict=False):
            path = paths[fault, method]
            axes.plot(path.kl, path.gold, color=color, label=f"{method}: gold")
            axes.plot(path.kl, path.proxy, ":", color=color, label=f"{method}: proxy")
        axes.set(title=f"{fault} proxy", xlabel="KL to the reference (nats per text)", ylim=(0, 1.5))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("reward")
    panels[0].legend(frameon=False, fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
