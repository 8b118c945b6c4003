"""Compare agents on one env: `python scripts/compare.py rloo ppo:n_epochs=2,kl_coef=0.02 --seeds 3 --out runs/compare`.

An entry is an agent of `scripts/train.py`, with its own arguments after a colon; env, model and length of training are
the same for all. Every entry is trained once per seed, and fresh episodes of what it ends with are measured. The table
goes to the terminal and `out`/compare.md, every number to compare.json, reward against KL to compare.png, and each run
has a folder. Table and figure show the most reward that is possible at each KL, estimated from the untrained model.
Repeat the command to go on after an interruption, or with more seeds: finished runs are not repeated.

The runs and the figure are in `scripts/experiments`. Left out: checkpoints, which `scripts/train.py` keeps, and
aggregates over several env ids.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from scripts.command_line import console
from scripts.experiments.comparison import Comparison, in_words
from scripts.experiments.frontier import Args, frontier_of
from scripts.experiments.runs import run_all


def main(args: Args) -> Comparison:
    """Run what is not there yet, then print and write the comparison."""
    records = run_all(args, in_words)
    comparison = Comparison(records, args.out, frontier_of(args))
    console.print()
    for table in comparison.tables():
        console.print(table)
    console.print(comparison.write(), soft_wrap=True)
    return comparison
