"""What is attainable in an env, before any training: `python scripts/frontier.py --env-id TextGen-v0 --samples 128`.

Samples the untrained model, and prints the most reward within some KLs of it, the least KL for some rewards, and what
the best of n of its texts earns, with 95% intervals. See docs/frontier.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from scripts.policies import ModelArgs, load
from textgym.arguments import Count, NonNegative
from textgym.evaluation import Frontier, OutOfRangeError, best_of_n_reward, sample_frontier
from textgym.evaluation.statistics import Interval
from textgym.matching import Estimate


@dataclass
class Args(ModelArgs):
    """What to sample, and which points of the frontier to print."""

    samples: Count = 128
    """Texts for each prompt."""
    frontier_prompts: Count = 64
    """Prompts that are sampled for; all of the env's, where it has fewer."""
    n_envs: Count = 128
    """Texts side by side."""
    kl: tuple[NonNegative, ...] = (0.1, 0.3, 1.0, 1.5)
    """KLs in nats per text."""
    rewards: tuple[float, ...] = ()
    """Rewards."""
    n: tuple[Count, ...] = (2, 4, 8, 16, 32)
    """Choices of best-of-n."""


def main(args: Args) -> Frontier:
    """Sample and print."""
    policy = load(args, args.n_envs).policy()
    frontier = sample_frontier(policy, args.frontier_prompts, args.samples, args.seed)
    rows = [
        *(("the most reward within a KL", kl, lambda kl=kl: (kl, frontier.reward_within(kl))) for kl in args.kl),
        *(("the least KL for a reward", r, lambda r=r: (frontier.least_kl(r), r)) for r in args.rewards),
        *(("best-of-n, its largest KL", n, lambda n=n: best_of_n_reward(frontier.rewards, n)) for n in args.n),
    ]
    table = Table(title=frontier.range, title_justify="left")
    for heading in ("", "of", "KL (nats per text)", "reward"):
        table.add_column(heading)
    for name, of, point in rows:
        try:
            cells = [text(number) for number in point()]
        except OutOfRangeError:
            cells = ["-", "-"]
        table.add_row(name, f"{of:g}", *cells)
    Console().print(table)
    return frontier


def text(number: Estimate | float) -> str:
    """A number, with its interval where one is known."""
    if not isinstance(number, Estimate):
        return f"{number:.3f}"
    half_width = (number.high - number.low) / 2
    return Interval(number.value, None if math.isnan(half_width) else half_width).text("{:.3f}")
