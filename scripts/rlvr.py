"""Reinforcement learning with verifiable rewards in minutes: `python scripts/rlvr.py --seeds 3 --out runs/rlvr`.

Every entry, an agent of `scripts/train.py` with its own arguments after a colon, is trained once per seed, and is
examined on prompts that training never sees. Nothing is sampled there: all answers are enumerated. So pass@k, KL and
entropy are exact, and beside each agent stands the most that any policy earns at its KL. Who sharpens, who keeps
coverage? The table goes to the terminal and `out`/rlvr.md, every number to rlvr.json, and each run has a folder. Repeat
the command to go on after an interruption, or with more seeds: finished runs are not repeated.

The ids whose answers can be enumerated are those with few allowed tokens, such as `TextGenArithmetic-v0`.
"""

from __future__ import annotations

import torch
from rich.markup import escape

from scripts.command_line import console, run_script
from scripts.experiments.rlvr import COLUMNS, Args, Report
from scripts.experiments.runs import execute, plan
from textgym.sb3 import EpisodicAlgorithm


def main(args: Args) -> Report:
    """Run what is not there yet, then print and write the table."""
    runs = plan(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    records = []
    for number, run in enumerate(runs, 1):
        console.print(f"\n{number}/{len(runs)} [bold]{escape(run.entry)}[/], seed {run.seed}", soft_wrap=True)
        known = run.result()
        records.append(known or execute(run, args))
        measures = ", ".join(f"{name} {form.format(records[-1]['evaluation'][name])}" for name, form in COLUMNS.items())
        console.print(f"{measures}, {records[-1]['training_cpu_seconds']:.0f} s of training", soft_wrap=True)
    untrained = EpisodicAlgorithm("TokenPolicy", args.env.make(), args.model, device=args.device)
    report = Report(records, args.best_of(untrained), args)
    console.print(report.table())
    console.print(report.write(), soft_wrap=True)
    return report


if __name__ == "__main__":
    run_script(main, Args, __doc__)
