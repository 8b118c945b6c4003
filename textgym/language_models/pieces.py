"""Which rows go through a model together: a batch is cut into pieces where that costs least."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

Slices = list[tuple[int, int]]

PASS_COST = {"cpu": 8, "cuda": 4096}
"""What a pass costs whatever its size, in tokens: reading weights, or launching kernels."""


def pass_cost(device_type: str) -> int:
    """`PASS_COST` of a device."""
    return PASS_COST.get(device_type, 32)


def cheapest_slices(lengths: np.ndarray, size: int | None, cost: int) -> tuple[float, Slices]:
    """Cut rows of sorted lengths, which are padded to the longest of their slice and cost n max(lengths) + `cost`.

    Args:
        lengths: (n,) tokens, sorted.
        size: rows in a slice at most; None sets no bound.
        cost: of a pass.

    Returns:
        the least cost, and the slices [start, end).
    """
    # Where there is no bound, only cuts between different lengths can gain anything.
    ends = np.arange(len(lengths)) if size else np.flatnonzero(np.diff(lengths, append=-1))
    return _cheapest_cuts(ends + 1, size, lambda starts, end: (end - starts) * lengths[end - 1] + cost)


def cheapest_groups(
    groups: np.ndarray, prompts: np.ndarray, completions: np.ndarray, size: int | None, cost: int
) -> tuple[float, Slices]:
    """Cut rows of which a prompt is computed once per slice, and padded to the slice's longest.

    Args:
        groups: (n,) the prompt of each row; rows of one prompt stand side by side.
        prompts: (n,) tokens of the prompts, sorted.
        completions: (n,) tokens fed behind them.
        size: rows in a slice at most; None sets no bound.
        cost: of a pass, of which a slice takes two at least.

    Returns:
        the least cost, and the slices [start, end).
    """
    number = np.cumsum(np.diff(groups, prepend=groups[:1]) != 0)  # of the prompt, in the order of the rows
    total = np.concatenate([[0], np.cumsum(completions)])
    ends = np.arange(len(groups)) if size else np.flatnonzero(np.diff(prompts, append=-1))

    def costs(starts: np.ndarray, end: int) -> np.ndarray:
        distinct = number[end - 1] - number[starts] + 1
        return distinct * prompts[end - 1] + total[end] - total[starts] + 2 * cost

    return _cheapest_cuts(ends + 1, size, costs)


def _cheapest_cuts(
    places: Iterable[int], size: int | None, costs: Callable[[np.ndarray, int], np.ndarray]
) -> tuple[float, Slices]:
    """Slices of at most `size` with the least sum of costs, by dynamic programming over the end of the last slice.

    Args:
        places: where a slice may end, in order; the last one is the end of all.
        size: None sets no bound.
        costs: of slices by their starts, (k,), and their common end.
    """
    ends = np.concatenate([[0], np.asarray(places, np.int64)])
    best, cut = np.zeros(len(ends)), np.zeros(len(ends), np.int64)
    for end in range(1, len(ends)):
        starts = np.arange(max(0, end - size) if size else 0, end)
        sums = best[starts] + costs(ends[starts], int(ends[end]))
        cut[end] = starts[sums.argmin()]
        best[end] = sums.min()
    slices, end = [], len(ends) - 1
    while end:
        slices.append((int(ends[cut[end]]), int(ends[end])))
        end = int(cut[end])
    return float(best[-1]), slices[::-1]
