"""What policy-gradient losses really optimise, by enumeration: `python scripts/gradients.py --json runs/losses.json`.

Each loss is that of a real agent of this package, or of TRL or TorchRL where these are installed. On a small
`TextGenToy-v0` all groups of episodes are enumerated, so the expected gradient is exact, and so is the policy at which
it vanishes. The tables are explained in docs/losses.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from scripts.command_line import console, versions
from scripts.experiments import loss_cases
from scripts.experiments.gradients import Case, Judge, toy_objective
from scripts.experiments.loss_plot import draw
from scripts.experiments.loss_tables import cell, filled
from textgym.arguments import Count, Positive, Seed

TableName = Literal["faults", "critics", "alone", "batches", "trl", "torchrl", "options", "transformer", "family"]


@dataclass
class Args:
    """What to judge, and on what."""

    tables: tuple[TableName, ...] = get_args(TableName)
    """Which losses."""
    num_tokens: Count = 2
    """Ordinary tokens of the toy whose groups are enumerated."""
    max_new_tokens: Count = 3
    """Its length limit."""
    group_size: Count = 3
    """Episodes of an enumerated group."""
    beta: Positive = 0.5
    """Weight of the KL penalty, in reward per nat."""
    seed: Seed = 0
    """Of the policy at which gradients are taken, and of the sampled batches."""
    json: Path | None = None
    """A file for the numbers."""
    page: Path | None = None
    """A page whose tables to write anew."""
    plot: Path | None = None
    """A picture of the fixed points."""


def main(args: Args) -> None:
    """Measure, print, and write."""
    torch.set_num_threads(1)
    page = args.page.read_text(encoding="utf-8") if args.page else ""  # one that is not there fails now
    for file in filter(None, (args.json, args.plot)):
        file.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for judge, case in cases(args):
        start = time.process_time()
        rows.append(judge.measure(case).as_json())
        row, seconds = rows[-1], time.process_time() - start
        numbers = " ".join(f"{n} {cell(row, n)}" for n in ("cosine", "ratio", "noise", "distance", "regret", "beta"))
        console.print(f"{case.table}: {case.name}: {numbers} ({seconds:.1f} s)", soft_wrap=True, markup=False)
    if args.json is not None:
        settings = {name: value for name, value in vars(args).items() if name not in ("json", "page", "plot")}
        run = {"settings": settings, "versions": versions() | loss_cases.installed(), "rows": rows}
        args.json.write_text(json.dumps(run, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if args.plot is not None:
        draw(rows, toy_objective(args.num_tokens, args.max_new_tokens, args.beta), args.plot)
    if args.page is not None:
        args.page.write_text(filled(page, rows), encoding="utf-8")


def cases(args: Args) -> Iterator[tuple[Judge, Case]]:
    """What judges, and each loss of the chosen tables."""
    small, toy = toy_objective(args.num_tokens, args.max_new_tokens, args.beta), toy_objective(4, 4, args.beta)
    enumerated, large = Judge(small, seed=args.seed), Judge(toy, seed=args.seed)
    of_groups = loss_cases.options, loss_cases.faults, loss_cases.trl, loss_cases.torchrl, loss_cases.family
    chosen: dict[str, tuple[Judge, Iterable[Case]]] = {
        "critics": (enumerated, loss_cases.critics(small)),
        "alone": (large, loss_cases.alone(toy)),
        "batches": (large, loss_cases.batches(toy)),
        **{table.__name__: (enumerated, table(small, args.group_size)) for table in of_groups},
    }
    for name in args.tables:
        if name == "transformer":
            yield from ((Judge(of, seed=args.seed), case) for of, case in loss_cases.transformer(args.group_size))
            continue
        judge, found = chosen[name]
        if name in loss_cases.LIBRARIES and name not in loss_cases.installed():
            console.print(f"{name}: left out, as {name}=={loss_cases.LIBRARIES[name]} is not installed", markup=False)
        yield from ((judge, case) for case in found)
