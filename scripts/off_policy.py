"""What another model would earn: `python scripts/off_policy.py log.jsonl --model runs/x/checkpoint`.

The log holds episodes of some other model (`python scripts/sample.py --n 2000 --log log.jsonl`). They are weighed by
how much likelier `--model` makes them, so nothing is sampled. The table has all estimators with 95% intervals and
effective sample sizes, and refuses those whose sample says too little. With `--scorer`, the episodes are scored anew:
what they would earn by another reward. The reusable part is `textgym.evaluation.off_policy`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.markup import escape

from scripts.command_line import console, read_saved, versions
from scripts.policies import ModelArgs, load
from textgym.arguments import Count, Positive, Probability
from textgym.evaluation import (
    ESTIMATORS,
    Estimator,
    ModelPolicy,
    NoOverlapError,
    NoReward,
    OffPolicyEstimate,
    estimate_value,
    off_policy_sample,
    read_episodes,
)
from textgym.evaluation.groups import group_size
from textgym.evaluation.importance import SMALLEST_SAMPLE, SampleSize
from textgym.evaluation.tables import off_policy_table
from textgym.language_models.precision import Precision
from textgym.matching import Estimate
from textgym.sb3.model_files import read_values


@dataclass
class Args(ModelArgs):
    """Which episodes, and of what policy the value is wanted."""

    log: tyro.conf.Positional[Path] = tyro.MISSING
    """The logged episodes, JSON lines."""
    estimators: tuple[Estimator, ...] = ()
    """Which estimators; by default all, the doubly robust ones where the checkpoint has a trained value head."""
    temperature: Positive | None = None
    """Of the policy; by default what the checkpoint was trained with, or 1."""
    gamma: Probability = 1.0
    """Discount per token."""
    min_effective_sample_size: SampleSize = SMALLEST_SAMPLE
    """Estimates from a smaller effective sample are refused."""
    micro_batch_size: Count | None = None
    """Episodes per forward pass at most; lower it when a large model runs out of memory."""
    dtype: Precision | None = None
    """`bfloat16` for autocast."""
    json: Path | None = None
    """Write the numbers to this file."""


def estimates(args: Args) -> tuple[Estimate, dict[str, OffPolicyEstimate | str]]:
    """The mean return of the log, and each estimator's answer, or why it is refused."""
    warpers = {} if args.temperature is None else {"temperature": args.temperature}
    loaded = load(args, 1, {} if args.scorer else {"scorer": NoReward()}, args.dtype, **warpers)
    path, saved = read_saved(args.model)
    if saved is not None:
        read_values(loaded.token_model, Path(path), saved)
    policy = ModelPolicy(loaded.env, loaded.token_model, micro_batch_size=args.micro_batch_size)
    episodes = read_episodes(args.log, policy.task)
    sample = off_policy_sample(episodes, policy, scorer=policy.task.scorer if args.scorer else None)
    found: dict[str, OffPolicyEstimate | str] = {}
    group, bound = group_size(episodes), args.min_effective_sample_size
    for name in args.estimators or [n for n in ESTIMATORS if sample.values is not None or n not in ("dr", "wdr")]:
        try:
            found[name] = estimate_value(sample, name, gamma=args.gamma, group=group, min_effective_sample_size=bound)
        except NoOverlapError as error:
            found[name] = str(error)
    return Estimate.mean_of(sample.rewards.sum(-1).view(-1, group).mean(-1)), found


def main(args: Args) -> dict[str, OffPolicyEstimate | str]:
    """Estimate, print, and write the JSON file if one is named."""
    logged, found = estimates(args)
    console.print(off_policy_table(f"{args.model} on {args.log}", logged, found))
    for reason in dict.fromkeys(reason for reason in found.values() if isinstance(reason, str)):
        console.print(f"refused: {escape(reason)}", soft_wrap=True)
    if args.json is not None:
        plain = {n: {"refused": e} if isinstance(e, str) else e._asdict() for n, e in found.items()}
        run = {"model": args.model, "log": str(args.log), "as_logged": logged._asdict(), "estimates": plain}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(run | {"versions": versions()}, indent=1, allow_nan=False) + "\n")
    return found
