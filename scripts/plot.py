"""Draw runs: `python scripts/plot.py runs/ppo runs/grpo --out runs/plot.png`.

A run is a folder that `scripts/train.py` wrote. Reward, KL to the reference, entropy and length are drawn over the
tokens of the training, and reward over KL, which shows what an agent pays for its reward. Lines are rollouts, dots are
evaluations (`train.py --eval-freq`).
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from pathlib import Path

import tyro

from scripts.command_line import console
from scripts.experiments.comparison import COLORS
from scripts.reports.runs import PANELS, Run, read_run, runs_among


@dataclass
class Args:
    """What to draw."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    out: Path = Path("runs/plot.png")
    """The figure, in any format that matplotlib writes: .png, .svg, .pdf."""


def main(args: Args) -> None:
    """Draw the figure."""
    runs, others = runs_among(args.runs, args.out)
    if others:
        console.print(f"left out, as there is no training in it: {', '.join(map(str, others))}", soft_wrap=True)
    if not runs:
        raise ValueError("name at least one folder of a run")
    draw([read_run(path) for path in runs], args.out)
    console.print(f"written: {args.out}", soft_wrap=True)


def draw(runs: list[Run], file: Path) -> None:
    """Panels over tokens, and reward over KL."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    *panels, over_kl, legend = axes.flat
    for number, run in enumerate(runs):
        color = COLORS[number % len(COLORS)]
        for axis, (title, column, name) in zip(panels, PANELS.values(), strict=True):
            axis.plot(*run.rollouts(column, 60), color=color, linewidth=1.5, alpha=0.8)
            axis.plot(*run.evaluated(name), "o", color=color, markersize=5, markeredgecolor="white")
            axis.set(title=title, xlabel="tokens")
        kl, reward = (run.rollouts(PANELS[name][1], 30)[1] for name in ("kl", "reward"))
        if len(kl) == len(reward):  # a run without a reference logs no KL
            over_kl.plot(kl, reward, color=color, linewidth=1.5, alpha=0.8)
        over_kl.plot(run.evaluated("kl_to_reference")[1], run.evaluated("reward")[1], "o", color=color, markersize=5)
        legend.plot([], [], color=color, linewidth=3, label=run.name)
    over_kl.set(title="reward over KL", xlabel="KL to the reference (nats per text)")
    for axis in (*panels, over_kl):
        axis.grid(alpha=0.3)
    legend.axis("off")
    legend.legend(loc="center", frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
