"""Learn a reward from preferences or ratings: `python scripts/reward_model.py --train train.jsonl --eval test.jsonl`.

Each seed is trained, evaluated on every file of `--eval`, and saved to `out`/seed-0 and so on, a directory of
transformers that the scorer `reward_model` loads by its path. The table says how often a model brings two held-out
texts into the order that people gave them. Beside it stands what VADER, the scorer `sentiment`, reaches and, where a
file has the ratings of single raters, what people reach themselves: one rater of each text, and half of its raters
against the others.

`torchrun --nproc-per-node 2 scripts/reward_model.py ...` trains each model in two processes.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
from dataclasses import make_dataclass

import torch

from agents import RewardModelTrainer
from scripts.command_line import console
from scripts.preferences.reward_models import RunArgs, baselines, record, table
from scripts.typed_arguments import options_of, read_values, typed
from textgym.arguments import arguments_of
from textgym.evaluation.statistics import Interval
from textgym.preferences.measures import RewardEvaluation
from textgym.training.distributed import processes, rank

OPTIONS = {
    name: argument
    for name, argument in arguments_of(RewardModelTrainer).items()
    if typed(argument.annotation) is not None and name not in ("tensorboard_log", "verbose")
}
Args = make_dataclass(
    "Args", options_of(OPTIONS, model="tiny", seed=0), bases=(RunArgs,), namespace={"__module__": __name__}
)


def train(args: RunArgs, seed: int) -> list[RewardEvaluation]:
    """Train, evaluate and save one model."""
    options = read_values(OPTIONS, args) | {"seed": seed}
    trainer = RewardModelTrainer(train_dataset=args.train, **options)
    trainer.learn(args.num_train_epochs, progress_bar=rank() == 0)
    found = [trainer.evaluate(file) for file in args.eval]
    if rank():
        return found
    trainer.save(args.out / f"seed-{seed}", adapters_only=args.adapters_only)
    for file, evaluation in zip(args.eval, found, strict=True):
        console.print(f"seed {seed}, {file}: {evaluation.text()}", soft_wrap=True)
    return found


def main(args: RunArgs) -> list[Interval]:
    """Train all seeds, print the table, and write all numbers to `out`/evaluation.json."""
    torch.set_num_threads(args.threads)
    compared = [baselines(file) for file in args.eval]  # a file that cannot be read fails now
    first: int = args.seed  # type: ignore[attr-defined]
    with processes():
        by_seed = [train(args, seed) for seed in range(first, first + args.seeds)]
        alone = rank() == 0
    means = [Interval.of([found.accuracy.mean for found in of_file]) for of_file in zip(*by_seed, strict=True)]
    if not alone:
        return means
    console.print(table(args.eval, by_seed, means, compared))
    files = {
        str(file): [record(found) for found in of_file]
        for file, of_file in zip(args.eval, zip(*by_seed, strict=True), strict=True)
    }
    (args.out / "evaluation.json").write_text(json.dumps(files, indent=1), encoding="utf-8")
    return means
