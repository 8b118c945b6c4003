"""How near f-DPG comes to its targets on `TextGenToy-v0`, exactly: `python scripts/match_toy.py --seeds 1`.

For each combination of divergence, proposal and baseline it trains one agent per target and seed, few updates on few
episodes so that differences show, and prints the mean total variation to the exact target, by enumeration.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from agents.distribution_matching import MatchingBaseline
from agents.proposals import ProposalName
from scripts.experiments.toy_targets import TARGETS, total_variation
from textgym.arguments import Count, Positive, Probability
from textgym.matching import DivergenceName, make_divergence, make_target


@dataclass
class Args:
    """What to try."""

    divergences: tuple[DivergenceName, ...] = ("jensen_shannon",)
    """Those to minimise, one after the other."""
    alpha: Probability = 0.5
    """Of the divergence `alpha`."""
    proposals: tuple[ProposalName, ...] = ("mixture",)
    """Where episodes are sampled."""
    baselines: tuple[MatchingBaseline, ...] = ("leave_one_out",)
    """What is subtracted from the pseudo-rewards."""
    seeds: Count = 3
    """Agents for each combination and target, with seeds 0, 1, ..."""
    updates: Count = 300
    """Gradient steps of each agent."""
    n_envs: Count = 64
    """Episodes in an update."""
    learning_rate: Positive = 0.1
    """At the beginning; it falls quadratically to 0."""
    initial_episodes: Count = 2048
    """Of the reference, from which a target is fitted before the training."""
    out: Path | None = None
    """A file for the numbers, as JSON."""


def main(args: Args) -> None:
    """Train, print and write."""
    torch.set_num_threads(1)
    table = Table(title=f"exact total variation, {args.updates} updates of {args.n_envs}, mean of {args.seeds} seeds")
    for column in ("divergence", "proposal", "baseline", *TARGETS):
        table.add_column(column)
    sizes: dict[str, Any] = {
        name: getattr(args, name) for name in ("updates", "n_envs", "learning_rate", "initial_episodes")
    }
    rows = []
    for divergence, proposal, baseline in itertools.product(args.divergences, args.proposals, args.baselines):
        alpha = args.alpha if divergence == "alpha" else None
        options: dict[str, Any] = {"divergence": divergence, "alpha": alpha, "proposal": proposal, "baseline": baseline}
        finite, cells = make_divergence(divergence, alpha).finite_on_zeros, []
        for target, spec in TARGETS.items():
            reachable = finite or not make_target(spec).has_zeros
            seeds = range(args.seeds if reachable else 0)
            found = [total_variation(target, seed=seed, **sizes, **options) for seed in seeds]
            rows.append({**options, "target": target, "total_variation": found})
            cells.append(f"{sum(found) / len(found):.3f}" if found else "infinite")
        table.add_row(divergence if alpha is None else f"alpha {alpha:g}", proposal, baseline, *cells)
    Console(width=max(Console().width, 120)).print(table)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"arguments": asdict(args) | {"out": str(args.out)}, "rows": rows}, indent=1))
