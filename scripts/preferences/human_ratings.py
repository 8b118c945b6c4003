"""Ratings by people of sentences from reviews and editorials: Hutto and Gilbert's (ICWSM 2014).

They are in the source distribution of vaderSentiment 3.3.2 (MIT), which is fetched through pip and has a pinned hash.
About 15 to 29 people gave each sentence a number from -4, extremely negative, to 4, extremely positive. In the movie
reviews, 30 or more consecutive sentences have the same raters in the same order; in the other files the order of a
sentence's ratings means nothing.
"""

from __future__ import annotations

import ast
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

from textgym.preferences import Preference, Rating
from textgym.preferences.pairs import make_pairs, rater_halves, split_of
from textgym.text_files import write_json_lines

SDIST = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SCALE = (-4, 4)
FILES = {
    "movies": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
"""What the files of each kind of sentences begin with."""


def download() -> dict[str, str]:
    """The tables of the archive inside the source distribution, by file name.

    Raises:
        CalledProcessError: pip cannot fetch it.
        ValueError: what it fetched is something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, SDIST], check=True)
        (sdist,) = Path(folder).glob("*.tar.gz")
        content = sdist.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{SDIST}: the source distribution's SHA-256 is {digest}, not the pinned {SHA256}")
    (archive,) = _members(content, "hutto_ICWSM_2014.tar.gz").values()
    return {
        name: table.decode("utf-8-sig") for name, table in _members(archive, "GroundTruth.txt", "Ratings.txt").items()
    }


def _members(archive: bytes, *endings: str) -> dict[str, bytes]:
    """The files of a tar archive whose names have one of some endings, by name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name.endswith(endings):
                found[name] = tar.extractfile(member).read()  # type: ignore[union-attr]  # a file has content
    return found


def ratings_of(kind: str, tables: dict[str, str]) -> list[Rating]:
    """The sentences of one kind with each rater's number and their mean, which is computed from these.

    Args:
        kind: one of `FILES`.
        tables: of `download`.
    """
    # rows are ID, mean, text, and ID, mean, deviation, ratings; a few of the products stand in another order
    given = {row[0]: ast.literal_eval(row[3].strip()) for row in _rows(tables[f"{FILES[kind]}_anonDataRatings.txt"])}
    return [
        Rating(row[2].strip(), sum(given[row[0]]) / len(given[row[0]]), ratings=tuple(given[row[0]]))
        for row in _rows(tables[f"{FILES[kind]}_GroundTruth.txt"])
    ]


def _rows(table: str) -> list[list[str]]:
    return [line.split("\t") for line in table.split("\n") if line.strip()]


def write_files(
    ratings: list[Rating],
    folder: Path,
    train_pairs: int = 20_000,
    test_pairs: int = 2_000,
    agreement: float = 0.7,
    seed: int = 0,
) -> None:
    """Write what `scripts/ratings.py` makes of one kind of sentences, each file whole or not at all.

    Args:
        ratings: of the sentences.
        folder: gets the files.
        train_pairs: how many pairs for training.
        test_pairs: how many of held-out texts.
        agreement: of raters, on pairs for training.
        seed: which pairs.

    Raises:
        ValueError: there are not so many pairs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, test = split_of(ratings, "train"), split_of(ratings, "test")
    for name, part in (("train", train), ("test", test)):
        for suffix, rated in zip(("", "-half-1", "-half-2"), (part, *rater_halves(part)), strict=True):
            write_json_lines(folder / f"{name}{suffix}.jsonl", map(columns, rated))
    agreed = make_pairs(train, train_pairs, agreement=agreement, seed=seed)
    write_json_lines(folder / "train-pairs.jsonl", map(columns, agreed))
    write_json_lines(folder / "test-pairs.jsonl", map(columns, make_pairs(test, test_pairs, seed=seed)))


def columns(row: Rating | Preference) -> dict[str, object]:
    """The columns of a text without a prompt."""
    return {name: value for name, value in asdict(row).items() if name != "prompt" and value is not None}
