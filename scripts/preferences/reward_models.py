"""The options of `scripts/reward_model.py`, what a reward model is compared with, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from textgym.arguments import Count, Positive
from textgym.evaluation.statistics import Interval
from textgym.preferences import Rating, read_ratings
from textgym.preferences.comparisons import comparisons_of, rated
from textgym.preferences.measures import RewardEvaluation, pair_accuracy
from textgym.preferences.pairs import rater_halves


@dataclass
class RunArgs:
    """What to learn from, and what to write."""

    train: Path
    """JSON lines of preferences (prompt, chosen, rejected), or for `--loss regression` of ratings (text, rating)."""
    eval: tuple[Path, ...] = ()
    """Files of preferences or ratings of held-out texts."""
    out: Path = Path("runs/reward_model")
    """Folder that gets the models and evaluation.json."""
    num_train_epochs: Positive = 1.0
    """Passes over the training data."""
    seeds: Count = 1
    """How many models to train, with the seeds from `--seed` on."""
    adapters_only: bool = False
    """Save adapters and the head alone; the scorer then loads the model that they belong to by its name."""
    threads: Count = 1
    """CPU threads of torch."""


def baselines(file: Path) -> dict[str, Interval]:
    """How often others bring the texts of a file into order: VADER, and where single raters are known, these."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    data, vader = comparisons_of(file, "eval"), SentimentIntensityAnalyzer()
    compound = np.array([vader.polarity_scores(prompt + completion)["compound"] for prompt, completion in data.items])
    found = {"VADER": pair_accuracy(compound, *data.pairs)}
    rows = list({(one.prompt, one.text): one for one in read_ratings(file)}.values()) if len(data.ratings) else []
    if rows and all(len(one.ratings) > 1 for one in rows):
        rng = np.random.default_rng(0)
        first, second = rater_halves(rows)
        found["one rater of each text"] = _agreement([float(rng.choice(one.ratings)) for one in rows], rows)
        found["half the raters, by the others"] = _agreement([one.rating for one in first], second)
    return found


def _agreement(scores: Sequence[float], ratings: Sequence[Rating]) -> Interval:
    return pair_accuracy(np.asarray(scores), *rated(ratings).pairs)


def table(
    files: Sequence[Path],
    by_seed: Sequence[Sequence[RewardEvaluation]],
    means: Sequence[Interval],
    compared: Sequence[dict[str, Interval]],
) -> Table:
    """Shares of pairs; the interval of several models is over their seeds, all others are over texts."""
    made = Table(title="Pairs of held-out texts in the order that people gave them", title_justify="left")
    for heading in ("file", "pairs", "who", "in order", "calibration error"):
        made.add_column(heading, justify="right" if heading in ("pairs", "calibration error") else "left")
    for file, of_file, mean, others in zip(files, zip(*by_seed, strict=True), means, compared, strict=True):
        errors = [one.reliability.expected_calibration_error for one in of_file if one.reliability is not None]
        share = mean if len(of_file) > 1 else of_file[0].accuracy
        name = f"reward model, {len(of_file)} seeds" if len(of_file) > 1 else "reward model"
        error = f"{np.mean(errors):.3f}" if errors else "-"
        made.add_row(file.name, f"{of_file[0].num_pairs:,}", name, share.text("{:.3f}"), error)
        for other, interval in others.items():
            made.add_row("", "", other, interval.text("{:.3f}"), "")
    return made


def record(found: RewardEvaluation) -> dict[str, object]:
    """An evaluation as JSON."""
    numbers: dict[str, object] = {"accuracy": found.accuracy.mean, "half_width": found.accuracy.half_width}
    numbers |= {"num_pairs": found.num_pairs, "num_texts": found.num_texts, "mean_reward": found.mean_reward}
    if (bins := found.reliability) is not None:
        numbers["expected_calibration_error"] = bins.expected_calibration_error
        numbers["reliability"] = {name: getattr(bins, name).tolist() for name in ("predicted", "observed", "counts")}
    return numbers
