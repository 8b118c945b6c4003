"""Train "movie-ratings", the reward model in the package: `python scripts/movie_ratings.py --out movie-ratings`.

It learns from half of the raters (`scripts/ratings.py`), so that the other half can judge it, and so that it can judge
reward models that learned from that one. Written are adapters in bfloat16, less than a megabyte, and how well they
agree with people on held-out texts is printed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from agents import RewardModelTrainer
from scripts.command_line import console
from textgym.preferences import read_ratings
from textgym.preferences.comparisons import rated
from textgym.preferences.measures import pair_accuracy
from textgym.scorers import make_scorer
from textgym.testing import make_generations

LORA = {
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["query", "key", "value", "dense"],
    "layers_to_transform": [3, 4, 5],
}
WEIGHTS = "adapter_model.safetensors"
KEPT = WEIGHTS, "adapter_config.json"
"""The tokenizer is that of the model that is adapted."""


@dataclass
class Args:
    """What to train on."""

    ratings: Path = Path("ratings/movies")
    """Folder that `scripts/ratings.py` wrote."""
    out: Path = Path("movie-ratings")
    """Folder of the adapters."""


def in_bfloat16(folder: Path) -> None:
    """Leave of saved adapters what is needed, at half the size."""
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for file in folder.iterdir():
        if file.name not in KEPT:
            file.unlink()


def judge(folder: Path, ratings: Path) -> None:
    """Print how many pairs of held-out texts are in the order of all raters, and of those that it never saw."""
    data = {name: rated(read_ratings(ratings / f"{name}.jsonl")) for name in ("test", "test-half-1")}
    texts = [text for _, text in data["test"].items]  # those of the other file, too
    scorer = make_scorer({"name": "reward_model", "model": str(folder)})
    scores = scorer.evaluate(make_generations([""] * len(texts), texts)).rewards
    for name, rows in data.items():
        console.print(f"{name}: {pair_accuracy(scores, *rows.pairs).text('{:.3f}')} of pairs")


def main(args: Args) -> None:
    """Train, write and judge."""
    torch.set_num_threads(1)
    train = args.ratings / "train-half-2.jsonl"
    trainer = RewardModelTrainer(
        "all-minilm-l6-v2", train, loss="regression", learning_rate=1e-3, lora=LORA, seed=0, device="cpu"
    )
    trainer.learn(num_train_epochs=0.7, progress_bar=True).save(args.out, adapters_only=True)
    in_bfloat16(args.out)
    judge(args.out, args.ratings)
