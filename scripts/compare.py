"""Compare agents: `python scripts/compare.py rloo ppo:n_epochs=2,kl_coef=0.02 --seeds 3 --out runs/compare`.

An entry is an agent of `scripts/train.py`, with its own arguments after a colon; env, model and length of training are
the same for all. Every entry is trained once per seed, and fresh episodes of what it ends with are measured. The table
goes to the terminal and `out`/compare.md, every number to compare.json, reward against KL to compare.png, and each run
has a folder. Table and figure show the most reward that is possible at each KL, estimated from the untrained model.
`--beta` gives every run a score, which is aggregated over ids; `--zoo` remakes the scores of the tuned agents.

The runs are done one after the other, `--processes` at a time, or as tasks of Ray (`--ray`). Repeat the command to go
on after an interruption, or with more seeds: finished runs are not repeated. One that fails does not stop the others.

The runs and the figure are in `scripts/experiments`. Left out: checkpoints, which `scripts/train.py` keeps.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import shlex
import sys

from scripts.command_line import console, versions
from scripts.experiments.comparison import Comparison, in_words
from scripts.experiments.frontier import frontier_of
from scripts.experiments.runs import run_all
from scripts.experiments.score_tables import known_scores, tell
from scripts.experiments.scores import Scores, scale_of
from scripts.experiments.zoo import Args, experiments_of


def main(args: Args) -> list[Comparison]:
    """Run what is not there yet, then print and write the comparison of each id."""
    experiments = experiments_of(args)
    comparisons = [
        Comparison(records, experiment.out, frontier_of(experiment))
        for experiment, records in zip(experiments, run_all(experiments, in_words), strict=True)
    ]
    for comparison in comparisons:
        console.print()
        for table in comparison.tables():
            console.print(table)
        console.print("\n".join([comparison.write(), *comparison.failures]), soft_wrap=True, markup=False)
    if all(experiment.beta is not None for experiment in experiments):
        scores = Scores(comparisons, [scale_of(experiment) for experiment in experiments])
        report = {"command": shlex.join(["python", "scripts/compare.py", *sys.argv[1:]]), "versions": versions()}
        told = tell(report | scores.to_json(), args.out, known_scores() if args.zoo else None)
        console.print(told, soft_wrap=True, markup=False)
    if failed := sum(len(comparison.failed) for comparison in comparisons):
        sys.exit(
            f"{failed} runs failed, of which `output.log` in their folders tells; the same command tries them again"
        )
    return comparisons
