"""pass@k as a function of k, for policies whose chance of a right answer is known for every prompt: who crosses whom.

A policy that only *sharpens* (Yue et al. 2025, arXiv 2504.13837) leads at k = 1 and is overtaken at some larger k, by
the untrained model or by a policy that kept more of what it could write.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.experiments.comparison import COLORS
from scripts.experiments.tables import readable

MOST_TRIES = 2**20
"""The k up to which curves are followed."""
LEAST_LEAD = 1e-6
"""Curves that are nearer to each other than this have not crossed: all of them end in 1."""
Chances = Sequence[Sequence[float]]
"""The chance of a right answer, per seed and prompt."""


def curve(chances: Sequence[float], ks: NDArray[np.int64]) -> NDArray[np.float64]:
    """pass@k, the mean of 1 - (1 - p)^k over the prompts' chances p: (K,) -> (K,)."""
    with np.errstate(divide="ignore"):
        return -np.expm1(ks[:, None] * np.log1p(-np.asarray(chances))).mean(-1)


def crossing(leader: Sequence[float], other: Sequence[float]) -> int | None:
    """The least k at which the other's pass@k is the higher one; None where there is none up to `MOST_TRIES`."""

    def overtaken(ks: NDArray[np.int64]) -> NDArray[np.int64]:
        return ks[curve(other, ks) > curve(leader, ks) + LEAST_LEAD]

    grid = np.unique(np.geomspace(1, MOST_TRIES, 400).astype(np.int64))
    found = overtaken(grid)
    if not len(found):
        return None
    before = grid[grid < found[0]].max(initial=0)
    return int(overtaken(np.arange(before + 1, found[0] + 1))[0])


def crossings(leader: Chances, other: Chances) -> str:
    """Where an entry is overtaken by another, seed by seed: the least and the greatest k.

    `never` is in no seed; a number without a second one, such as `12..`, is in some seeds only.
    """
    found = [crossing(*pair) for pair in zip(leader, other, strict=True)]
    known = [k for k in found if k is not None]
    if not known:
        return "never"
    last = f"{max(known):,}" if len(known) == len(found) else ""
    return last if last == f"{min(known):,}" else f"{min(known):,}..{last}"


def ranked(entries: dict[str, Chances]) -> list[str]:
    """The entries by their pass@1, the highest first."""
    return sorted(entries, key=lambda entry: -np.mean(entries[entry]))


def crossing_table(entries: dict[str, Chances]) -> list[list[str]]:
    """Rows of text, by pass@1: an entry's number and name, and the k at which each later one overtakes it."""
    order = ranked(entries)
    rows = [["", "is overtaken by", *(str(number) for number in range(2, len(order) + 1))]]
    for i, leader in enumerate(order):
        cells = [crossings(entries[leader], entries[other]) if j > i else "" for j, other in enumerate(order) if j]
        rows.append([str(i + 1), f"`{leader}`", *cells])
    return rows


def draw(entries: dict[str, Chances], title: str, file: Path) -> None:
    """The curves, means over seeds, with bands from the least to the greatest seed."""
    from matplotlib.figure import Figure

    ks = np.unique(np.geomspace(1, 4096, 60).astype(np.int64))
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.subplots()
    for number, entry in enumerate(ranked(entries)):
        color, style = COLORS[number % len(COLORS)], "-" if number < len(COLORS) else "--"
        curves = np.stack([curve(chances, ks) for chances in entries[entry]])  # (seeds, K)
        axes.plot(ks, 1 - curves.mean(0), style, color=color, label=textwrap.fill(readable(entry), 100))
        axes.fill_between(ks, 1 - curves.min(0), 1 - curves.max(0), color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="k", ylabel="1 - pass@k", title=title, xscale="log", yscale="log", ylim=(1e-4, 1))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)
