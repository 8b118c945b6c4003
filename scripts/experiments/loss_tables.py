"""The tables of docs/losses.md, from what `scripts/gradients.py` measured."""

from __future__ import annotations

import re
from typing import Any

from scripts.experiments.loss_cases import FAMILY, NORMALIZATIONS, PENALTIES

Row = dict[str, Any]
COLUMNS = {
    "cosine": "cosine",
    "ratio": "length",
    "noise": "noise",
    "later": "cosine, a step later",
    "distance": "TV",
    "regret": "regret",
    "beta": "its beta",
    "below": "below",
}
"""Numbers of a row, and what they are called on the page."""
HEADS = {
    "losses": ("loss",),
    "options": ("loss",),
    "transformer": ("loss", "penalty"),
    "critics": ("critic", "lambda"),
    "faults": ("loss",),
    "trl": ("trainer and arguments",),
    "torchrl": ("loss and arguments", "penalty"),
    "batches": ("loss",),
    "alone": ("penalty",),
}
"""The tables whose rows are losses, and what the parts of a row's name are."""


def tables(rows: list[Row]) -> dict[str, str]:
    """The Markdown of each table that there are rows for, by its name."""
    plain = [
        row | {"table": "losses", "name": row["name"].split(" | ")[0]}
        for row in rows
        if row["table"] == "family" and row["name"].endswith(" | reward | sum")
    ]
    of = {name: [row for row in [*rows, *plain] if row["table"] == name] for name in HEADS}
    found = {name: of_losses(HEADS[name], chosen) for name, chosen in of.items() if chosen}
    return {"grid": grid(rows), **found} if plain else found


def of_losses(head: tuple[str, ...], rows: list[Row]) -> str:
    """One row per loss."""
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    body = [[*row["name"].split(" | "), *(cell(row, name) for name in names)] for row in rows]
    return markdown([*head, *(COLUMNS[name] for name in names)], body)


def grid(rows: list[Row]) -> str:
    """Losses by penalties and normalisations: total variation of the fixed point, or none."""
    found = {row["name"]: row for row in rows if row["table"] == "family"}
    columns = [f"{p} | {n}" for p in PENALTIES if p != "k3" for n in NORMALIZATIONS]  # k3 rests where k2 does
    head = ["loss", *(column.replace(" |", ",") for column in columns)]
    body = [[name, *(cell(found[f"{name} | {column}"], "distance") for column in columns)] for name in FAMILY]
    return markdown(head, body)


def cell(row: Row, name: str) -> str:
    """A number of a row; with its standard error where it is sampled."""
    if name not in row:
        return "none" if name == "distance" and row.get("rests") is False else ""
    error = f" ± {row['cosine_error']:.4f}" if name == "cosine" and "cosine_error" in row else ""
    return f"{row[name]:z.{4 if error else 3}f}{error}"


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])


def filled(page: str, rows: list[Row]) -> str:
    """A page with its tables written anew, as far as there are rows for them."""
    known = tables(rows)

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{known.get(match[2]) or match[3]}\n{match[4]}"

    return re.sub(r"(<!-- table: (\w+) -->\n)(.*?)\n(<!-- end of table -->)", table, page, flags=re.S)
