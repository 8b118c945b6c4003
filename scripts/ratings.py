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

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from scripts.command_line import console
from scripts.preferences.human_ratings import FILES, download, ratings_of, write_files
from textgym.arguments import Count, Probability, Seed
from textgym.preferences import Rating
from textgym.preferences.agreement import concordance, krippendorff_alpha
from textgym.preferences.pairs import rater_halves


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
        write_files(ratings, args.out / kind, args.train_pairs, args.test_pairs, args.agreement, args.seed)
        table.add_row(kind, *agreements(ratings))
    console.print(table)
    console.print(f"written: {args.out}", soft_wrap=True)
