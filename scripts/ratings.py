"""Fetch what people think of 19,503 sentences, and make pairs of it: `python scripts/ratings.py --out ratings`.

The sentences are from movie reviews, product reviews and editorials, and each was rated by 15 to 29 people (Hutto and
Gilbert 2014). They are in the source distribution of vaderSentiment 3.3.2, which pip fetches. Each kind gets a folder:

* `train.jsonl` and `test.jsonl`: text, rating (the mean) and ratings (each rater's), a fifth of the texts held out;
* `train-half-1.jsonl`, `train-half-2.jsonl` and the same for `test`: the same of every second rater, and of the others;
* `train-pairs.jsonl`: chosen, rejected and margin, of texts on which `--agreement` of the raters agree;
* `test-pairs.jsonl`: random pairs of held-out texts, on which people may disagree.

The table says how well people agree, and how well VADER, the scorer `sentiment`, agrees with them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from scripts.command_line import console, run_script
from scripts.preferences.human_ratings import FILES, download, ratings_of
from textgym.arguments import Count, Probability, Seed
from textgym.preferences import Preference, Rating
from textgym.preferences.agreement import concordance, krippendorff_alpha
from textgym.preferences.pairs import make_pairs, rater_halves, split_of
from textgym.text_files import write_json_lines


@dataclass
class Args:
    """What to make."""

    out: Path = Path("ratings")
    """Folder that gets a folder for each kind of sentences."""
    train_pairs: Count = 20_000
    """Pairs of texts for training."""
    test_pairs: Count = 2_000
    """Pairs of held-out texts."""
    agreement: Probability = 0.7
    """Pairs for training are those in which a rater of the one gave it more than a rater of the other with at least
    this chance."""
    seed: Seed = 0
    """Which pairs."""


def write(ratings: list[Rating], folder: Path, args: Args) -> None:
    """The files of one kind."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = split_of(ratings, "train"), split_of(ratings, "test")
    for name, part in (("train", train), ("test", test)):
        for suffix, rated in zip(("", "-half-1", "-half-2"), (part, *rater_halves(part)), strict=True):
            write_json_lines(folder / f"{name}{suffix}.jsonl", map(columns, rated))
    pairs = make_pairs(train, args.train_pairs, agreement=args.agreement, seed=args.seed)
    write_json_lines(folder / "train-pairs.jsonl", map(columns, pairs))
    write_json_lines(folder / "test-pairs.jsonl", map(columns, make_pairs(test, args.test_pairs, seed=args.seed)))


def columns(row: Rating | Preference) -> dict[str, object]:
    """The columns of a text without a prompt."""
    return {name: value for name, value in asdict(row).items() if name != "prompt" and value is not None}


def agreements(ratings: list[Rating]) -> list[str]:
    """A row of the table: shares of all pairs of texts."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer, rng = SentimentIntensityAnalyzer(), np.random.default_rng(0)
    means = [one.rating for one in ratings]
    first, second = ([one.rating for one in half] for half in rater_halves(ratings))
    shares = [
        concordance([analyzer.polarity_scores(one.text)["compound"] for one in ratings], means),
        concordance([float(rng.choice(one.ratings)) for one in ratings], means),
        concordance(first, second),
    ]
    alpha = krippendorff_alpha([one.ratings for one in ratings], "interval")
    return [f"{len(ratings):,}", *(f"{share:.1%}" for share in shares), alpha.text("{:.3f}")]


def main(args: Args) -> None:
    """Fetch, write, and print the table."""
    tables = download()
    table = Table(title="Pairs of texts in the order of their mean ratings", title_justify="left")
    for heading in ("sentences", "texts", "VADER", "one rater", "half the raters, by the others", "alpha"):
        table.add_column(heading, justify="left" if heading == "sentences" else "right")
    for kind in FILES:
        ratings = ratings_of(kind, tables)
        write(ratings, args.out / kind, args)
        table.add_row(kind, *agreements(ratings))
    console.print(table)
    console.print(f"written: {args.out}", soft_wrap=True)


if __name__ == "__main__":
    run_script(main, Args, __doc__)
