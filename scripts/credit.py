"""How near counterfactual credits come to exact advantages on `TextGenToy-v0`: `python scripts/credit.py --repeats 8`.

Episodes of a random policy are credited with the env's reference, all of them, weighed by their probabilities, so that
means over episodes are exact and only the reference's draws are random. The columns are defined in docs/wrappers.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table

from scripts.experiments.credit import CreditProblem
from textgym.arguments import Count, NonNegative, Seed


@dataclass
class Args:
    """What to compare."""

    samples: tuple[int, ...] = (1, 4, 16)
    """Other tokens for each token."""
    repeats: Count = 64
    """Draws of all credits."""
    distance: NonNegative = 1.0
    """Standard deviation of what the policy's logits add to the reference's; at 0 the policy is the reference."""
    seed: Seed = 0
    """Of everything that is drawn; the same one gives the same numbers on one machine."""


def main(args: Args) -> None:
    """Compute and print."""
    torch.set_num_threads(1)
    problem = CreditProblem(gym.make("TextGenToy-v0"), args.distance, args.seed)
    table = Table(title=f"credits and exact advantages, KL to the reference {problem.kl:.2f} nats")
    for column in ("what weighs a token", "samples", "correlation", "error", "gradient cosine", "gradient bias"):
        table.add_column(column)
    rows = [("return minus its mean", "", problem.compare([problem.centred_returns()]))]
    for rest in ("held", "redrawn"):
        for samples in args.samples:
            found = [problem.credits(rest, samples, args.seed + repeat) for repeat in range(args.repeats)]
            rows.append((f"credit, the rest {rest}", str(samples), problem.compare(found)))
    for name, count, measured in rows:
        table.add_row(name, count, *(f"{value:.2f}" for value in measured))
    Console(width=max(Console().width, 100)).print(table)
