"""Evaluate a model or a checkpoint in an env: `python scripts/evaluate.py --model runs/x --env-id TextGen-v0`.

It samples fresh episodes and reports the reward and each scorer component, the KL divergence from the reference model,
entropy, length, and how varied the texts are: a table for people, and with `--json FILE` the same for machines. With
`--pass-at 1 16` it samples several completions of each prompt and reports how often one of k is right; `--scorers`
names scorers that training never sees, and `--split test` held-out prompts. `--frontier 128` samples the reference, 128
texts of each of many prompts, and says how far the policy is from the best at its KL and at its reward. The reusable
parts are `textgym.evaluation.evaluate` and `sample_frontier`. Nothing is trained.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json

from rich.console import Console

from scripts.command_line import text_or_json, versions
from scripts.evaluation_arguments import Args
from scripts.policies import load
from textgym.evaluation import Evaluation, evaluate, sample_frontier, show_sample
from textgym.evaluation.tables import table


def main(args: Args) -> Evaluation:
    """Evaluate, print, and write the JSON file if one is named."""
    loaded = load(args, args.rows(), {"num_generations": args.group()}, dtype=args.dtype)
    policy = loaded.policy(args.reference, args.micro_batch_size)
    scorers = [text_or_json("scorers", text) for text in args.scorers]
    frontier = sample_frontier(policy, args.frontier_prompts, args.frontier, args.seed) if args.frontier else None
    evaluation = evaluate(policy, args.episodes, args.samples, args.told_by(), scorers, frontier)
    if args.json is not None:  # before anything is printed, which may fail: `evaluate.py ... | head`
        run = {
            "model": args.model,
            "reference": loaded.reference,
            "env_id": loaded.env_id,
            "env_kwargs": loaded.env_kwargs,
            "seed": args.seed,
            "frontier": frontier and {"shape": list(frontier.rewards.shape), "limit": frontier.limit._asdict()},
            "device": str(policy.token_model.device),
            "dtype": policy.token_model.dtype,
            "versions": versions(),
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(run | evaluation.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    console = Console()
    title = f"{args.model} in {loaded.env_id}, {args.episodes} episodes, reference {loaded.reference}"
    console.print(table(evaluation, title))
    if frontier is not None:
        console.print(frontier.range, soft_wrap=True)
    for sample in evaluation.samples:
        show_sample(sample, console)
    return evaluation
