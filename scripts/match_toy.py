"""How near f-DPG comes to its targets on `TextGenToy-v0`, exactly: `python scripts/match_toy.py --seeds 1`.

For each combination of divergence, proposal and baseline it trains one agent per target and seed, few updates on few
episodes so that differences show, and prints the mean total variation to the exact target, by enumeration.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table

import textgym  # noqa: F401 (registers the env ids)
from agents import DistributionMatching
from agents.distribution_matching import Baseline, ProposalName
from scripts.command_line import run_script
from textgym.exact import TokenTree
from textgym.matching import DivergenceName, make_divergence, make_target
from textgym.sb3.callbacks import Decay

ONES = {"name": "token_counts", "weights": {"1": 1.0}, "component_name": "ones"}
SCORER = {
    "name": "weighted_sum",
    "scorers": [
        {"name": "token_counts", "weights": {"1": 1.0, "3": -0.5}},
        {"name": "keyword", "words": "1", "component_name": "some_1"},
        {"name": "keyword", "words": "3", "component_name": "some_3"},
        {"name": "threshold", "scorer": ONES, "at": 3, "component_name": "three_1"},
    ],
    "weights": [1.0, 0.0, 0.0, 0.0],
}
TARGETS: dict[str, dict[str, Any]] = {
    "dense filter": {"name": "pointwise", "feature": "some_1"},
    "sparse filter": {"name": "pointwise", "feature": "three_1"},
    "distributional": {"name": "distributional", "means": {"some_1": 0.8, "some_3": 0.3}},
    "RLHF": {"name": "rlhf", "beta": 0.5},
}


@dataclass
class Args:
    """What to try."""

    divergences: tuple[DivergenceName, ...] = ("jensen_shannon",)
    alpha: float = 0.5
    """Of the divergence `alpha`."""
    proposals: tuple[ProposalName, ...] = ("mixture",)
    baselines: tuple[Baseline, ...] = ("leave_one_out",)
    seeds: int = 3
    updates: int = 300
    n_envs: int = 64
    """Episodes in an update."""
    learning_rate: float = 0.1
    """At the beginning; it falls quadratically to 0."""
    initial_episodes: int = 2048
    out: Path | None = None
    """A file for the numbers, as JSON."""


def total_variation(args: Args, target: str, seed: int, **options: Any) -> float:
    """The exact distance that one agent reaches."""
    env = gym.make_vec("TextGenToy-v0", num_envs=args.n_envs, autoreset_mode="Disabled", scorer=SCORER)
    agent = DistributionMatching(
        "TokenPolicy",
        env,
        target=TARGETS[target],
        initial_episodes=args.initial_episodes,
        policy_kwargs={"value_function": "separate"},
        seed=seed,
        device="cpu",
        **options,
    )
    agent.learn(10**9, callback=Decay(args.updates, args.learning_rate))
    tree = TokenTree.of(env)
    features, log_a = tree.scores(env), tree.log_probs(env.unwrapped.reference_logits)  # type: ignore[attr-defined]
    exact = make_target(TARGETS[target]).fit(features, log_a)
    log_p = (log_a + exact.log_weights(features)).log_softmax(0)
    log_pi = tree.log_probs(agent.policy.model.table.detach())  # type: ignore[arg-type]
    return (log_pi.exp() - log_p.exp()).abs().sum().item() / 2


def main(args: Args) -> None:
    """Train, print and write."""
    torch.set_num_threads(1)
    table = Table(title=f"exact total variation, {args.updates} updates of {args.n_envs}, mean of {args.seeds} seeds")
    for column in ("divergence", "proposal", "baseline", *TARGETS):
        table.add_column(column)
    rows = []
    for divergence, proposal, baseline in itertools.product(args.divergences, args.proposals, args.baselines):
        alpha = args.alpha if divergence == "alpha" else None
        options = {"divergence": divergence, "alpha": alpha, "proposal": proposal, "baseline": baseline}
        finite, cells = make_divergence(divergence, alpha).finite_on_zeros, []
        for target, spec in TARGETS.items():
            reachable = finite or not make_target(spec).has_zeros
            found = [total_variation(args, target, seed, **options) for seed in range(args.seeds) if reachable]
            rows.append({**options, "target": target, "total_variation": found})
            cells.append(f"{sum(found) / len(found):.3f}" if found else "infinite")
        table.add_row(divergence if alpha is None else f"alpha {alpha:g}", proposal, baseline, *cells)
    Console(width=max(Console().width, 120)).print(table)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"arguments": asdict(args) | {"out": str(args.out)}, "rows": rows}, indent=1))


if __name__ == "__main__":
    run_script(main, Args, __doc__)
