"""Reinforcement learning with verifiable rewards in minutes: `python scripts/rlvr.py --seeds 3 --out runs/rlvr`.

Every entry, an agent of `scripts/train.py` with its own arguments after a colon, is trained once per seed, and is
examined on prompts that training never sees. Nothing is sampled there: all answers are enumerated. So pass@k, KL and
entropy are exact, and beside each agent stands the most that any policy earns at its KL. Who sharpens, who keeps
coverage? The table goes to the terminal and `out`/rlvr.md, every number to rlvr.json, and each run has a folder. Repeat
the command to go on after an interruption, or with more seeds: finished runs are not repeated.

The ids whose answers can be enumerated are those with few allowed tokens, such as `TextGenArithmetic-v0`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import replace
from typing import Any

from scripts.command_line import console
from scripts.experiments.rlvr import COLUMNS, Args, Report
from scripts.experiments.runs import run_one
from textgym.sb3 import EpisodicAlgorithm


def in_words(record: dict[str, Any]) -> str:
    """What is told of a run."""
    measures = ", ".join(f"{name} {form.format(record['evaluation'][name])}" for name, form in COLUMNS.items())
    return f"{measures}, {record['training_cpu_seconds']:.0f} s of training"


def main(args: Args) -> Report:
    """Run what is not there yet, then print and write the table."""
    _ = replace(args).answers  # what cannot be asked is refused before anything is trained
    records = run_one(args, in_words)
    untrained = EpisodicAlgorithm("TokenPolicy", args.env.make(), args.model, device=args.device)
    report = Report(records, args.best_of(untrained), args)
    console.print(report.table())
    console.print(report.write(), soft_wrap=True)
    return report
