"""How near estimates of credit come to exact advantages on `TextGenToy-v0`: `python scripts/credit.py`.

Episodes of a random policy are credited, all of them, weighed by their probabilities, so that means over episodes are
exact and only what an estimate itself draws is random. With `--seeds`, agents learn from some of the estimates and from
the exact advantages. The columns are defined in docs/credit.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table

from scripts.experiments.credit import CreditProblem
from scripts.experiments.credit_tables import COLUMNS, Args, comparisons, learned


def main(args: Args) -> None:
    """Compute and print.

    Raises:
        ValueError: agents are to learn without a penalty, or a group has one episode.
    """
    if args.seeds and not args.beta:
        raise ValueError("--seeds compares agents by a KL-regularised objective, so --beta must be above 0")
    if args.group_size < 2:
        raise ValueError("--group-size is 1; a group compares two episodes or more")
    torch.set_num_threads(1)
    problem = CreditProblem(gym.make("TextGenToy-v0"), args.distance, args.seed, args.beta)
    table = Table(*COLUMNS, title=f"credits and exact advantages, KL to the reference {problem.kl:.2f} nats")
    for name, measured in comparisons(problem, args):
        table.add_row(name, *(f"{value:.2f}" for value in measured))
    console = Console(width=max(Console().width, 110))
    console.print(table)
    if args.seeds:
        console.print(learned(args))
