"""Reinforcement learning from human feedback, end to end: `python scripts/rlhf.py --seeds 3 --out runs/rlhf`.

Ratings by people (`scripts/ratings.py`) become two reward models, one from each half of the raters. Every entry, an
agent of `scripts/train.py` with its own arguments after a colon, is paid by the first one. The second one, the held-out
one, and VADER score the same texts, unpaid. The table and the figure show both over the KL to the untrained model, and
where the held-out reward turns: beyond it the agent exploits the proxy. They go to `out`/rlhf.json, .md and .png.

Repeat the command to go on after an interruption, or with more seeds: finished parts are not repeated.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from typing import Any

from rich.console import Console

from scripts.command_line import console
from scripts.experiments.comparison import measured
from scripts.experiments.rlhf import COLUMNS, Args, Report, reward_models, train_reward_model, with_reward
from scripts.experiments.runs import plan, run_one
from textgym.evaluation.statistics import Interval


def in_words(record: dict[str, Any]) -> str:
    """What is told of a run."""
    measures = ", ".join(f"{heading} {measured(record, name):.2f}" for name, heading in COLUMNS.items())
    return f"{measures}; {record['training_cpu_seconds']:.0f} s of training"


def main(args: Args) -> Report:
    """Run what is not there yet, then print and write the report."""
    paid = with_reward(args)
    models = reward_models(args)
    for model in models:
        model.result()
    plan(paid)  # what cannot be run is refused before anything is trained
    for model in models:
        for half, accuracy in train_reward_model(model, args)["evaluation"].items():
            share = Interval(**accuracy).text("{:.3f}")
            console.print(
                f"{model.entry}: {share} of held-out pairs in the order of {half} of the raters", soft_wrap=True
            )
    report = Report(run_one(paid, in_words), paid)
    Console(width=max(console.width, 120)).print(report.table())
    console.print(report.write(), soft_wrap=True)
    return report
