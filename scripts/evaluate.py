"""Evaluate a model or a checkpoint in an env: `python scripts/evaluate.py --model runs/x --env-id TextGen-v0`.

It samples fresh episodes and reports the reward and each scorer component, the KL divergence from the reference model,
entropy, length, and how varied the texts are: a table for people, and with `--json FILE` the same for machines. The
reusable part is `textgym.evaluation.evaluate`. Nothing is trained.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from scripts.command_line import run_script, versions
from scripts.policies import ModelArgs, load
from textgym.arguments import Count, Range
from textgym.evaluation import Evaluation, evaluate, show_sample
from textgym.evaluation.tables import table
from textgym.language_models.precision import Precision


@dataclass
class Args(ModelArgs):
    """What to evaluate."""

    reference: str | None = None
    """What KL is measured to; by default the checkpoint's reference, or for a plain model itself (KL is then 0)."""
    episodes: Count = 256
    """Fresh episodes to sample."""
    n_envs: Count | None = None
    """Episodes side by side; divides `episodes`. By default its largest divisor up to 64."""
    micro_batch_size: Count | None = None
    """Episodes per forward pass at most; lower it when a large model runs out of memory."""
    dtype: Precision | None = None
    """`bfloat16` for autocast."""
    samples: Annotated[int, Range(0)] = 4
    """How many texts to show."""
    json: Path | None = None
    """Write the numbers to this file."""

    def rows(self) -> int:
        """Episodes side by side.

        Raises:
            ValueError: `n_envs` does not divide `episodes`.
        """
        rows = self.n_envs or max(d for d in range(1, min(self.episodes, 64) + 1) if self.episodes % d == 0)
        if self.episodes % rows:
            raise ValueError(f"--episodes {self.episodes} is not a multiple of --n-envs {self.n_envs}")
        return rows


def main(args: Args) -> Evaluation:
    """Evaluate, print, and write the JSON file if one is named."""
    loaded = load(args, args.rows(), dtype=args.dtype)
    policy = loaded.policy(args.reference, args.micro_batch_size)
    evaluation = evaluate(policy, args.episodes, args.samples)
    console = Console()
    title = f"{args.model} in {loaded.env_id}, {args.episodes} episodes, reference {loaded.reference}"
    console.print(table(evaluation, title))
    for sample in evaluation.samples:
        show_sample(sample, console)
    if args.json is not None:
        run = {
            "model": args.model,
            "reference": loaded.reference,
            "env_id": loaded.env_id,
            "env_kwargs": loaded.env_kwargs,
            "seed": args.seed,
            "device": str(policy.token_model.device),
            "dtype": policy.token_model.dtype,
            "versions": versions(),
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(run | evaluation.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return evaluation


if __name__ == "__main__":
    run_script(main, Args, __doc__)
