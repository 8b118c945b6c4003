"""Bring a language model to a constraint with f-DPG, and look at the price: `python scripts/constraints.py keyword`.

The env ids and constraints are those of `docs/constraints.md`. For each divergence and seed it trains a
`DistributionMatching` agent and prints how far the constraint is met, KL(pi || a) beside the least that any policy pays
for the same satisfaction, and how varied the texts are; then, for comparison, REINFORCE stopped at equal satisfaction.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
from dataclasses import asdict

import torch

from scripts.command_line import console
from scripts.experiments.constraints import Args, Row, run, show


def main(args: Args) -> None:
    """Train, print and write."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows: list[Row] = []
    for divergence in args.divergences:
        for seed in range(args.seeds):
            rows += run(args, divergence, seed)
            show(args, rows)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{args.constraint}{'-smollm2' if args.smollm2 else ''}.json"
    numbers = [asdict(row) | {"evaluation": row.evaluation.to_json()} for row in rows]
    file.write_text(json.dumps({"arguments": asdict(args) | {"out": str(args.out)}, "rows": numbers}, indent=1))
    console.print(f"written to {file}")
