"""Pairs out of ratings: what is held out, halves of the raters, and pairs of texts on which raters agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from textgym.arguments import Count, Probability, Seed, check_argument
from textgym.preferences.data import Preference, Rating
from textgym.splits import Split, in_split

PATIENCE = 20_000
"""Draws in a row that bring no new pair, after which there are no more."""


def split_of(ratings: Sequence[Rating], split: Split) -> list[Rating]:
    """The ratings for training, or those held out: a text is in the same part whatever stands beside it."""
    return [one for one in ratings if in_split(one.prompt + one.text, split)]


def rater_halves(ratings: Sequence[Rating]) -> tuple[list[Rating], list[Rating]]:
    """The same texts rated by every second rater, and by the others.

    Where raters stand in the same order beside several texts, these are the same people.

    Raises:
        ValueError: a text has fewer than two raters.
    """
    for one in ratings:
        _check_raters(one)
    first, second = ([_rated(one, one.ratings[start::2]) for one in ratings] for start in (0, 1))
    return first, second


def rater_agreement(better: Rating, worse: Rating) -> float:
    """The chance that a rater of one text gave it more than a rater of the other gave that one; ties count half.

    Raises:
        ValueError: a text has fewer than two raters.
    """
    for one in (better, worse):
        _check_raters(one)
    gaps = np.subtract.outer(better.ratings, worse.ratings)
    return float((np.sign(gaps).mean() + 1) / 2)


def make_pairs(
    ratings: Sequence[Rating], num_pairs: Count, *, agreement: Probability = 0.0, seed: Seed = 0
) -> list[Preference]:
    """Different random pairs of texts with the same prompt; the one with the higher mean rating is chosen.

    The difference of the means is the margin; pairs of equal means are ties.

    Args:
        ratings: of the texts.
        num_pairs: how many.
        agreement: pairs on which raters agree less are left out (`rater_agreement`), and ties, where this is above 0.5;
            with 0.5 or less none is.
        seed: which pairs.

    Raises:
        ValueError: there are not so many; with an `agreement` above 0.5, a text has fewer than two raters.
    """
    for name, value, kind in (("num_pairs", num_pairs, Count), ("agreement", agreement, Probability)):
        check_argument(name, value, kind)
    found: dict[tuple[int, int], Preference] = {}
    seen: set[tuple[int, int]] = set()
    in_vain = 0
    for pair in _draws(ratings, seed):
        in_vain += 1
        if pair not in seen:
            seen.add(pair)
            if (preference := _preference(ratings[pair[0]], ratings[pair[1]], agreement)) is not None:
                found[pair], in_vain = preference, 0
        if len(found) == num_pairs:
            return list(found.values())
        if in_vain == PATIENCE:
            break
    raise ValueError(
        f"num_pairs is {num_pairs}, but {len(ratings)} ratings have only {len(found)} pairs of different texts with "
        f"the same prompt on which raters agree to {agreement:g}"
    )


def _draws(ratings: Sequence[Rating], seed: int) -> Iterator[tuple[int, int]]:
    """Numbers of two ratings with the same prompt, the smaller one first, for ever; all pairs alike."""
    groups: dict[str, list[int]] = {}
    for number, one in enumerate(ratings):
        groups.setdefault(one.prompt, []).append(number)
    members = [np.array(group) for group in groups.values() if len(group) > 1]
    if not members:
        return
    sizes = np.array([len(group) for group in members])
    chances = sizes * (sizes - 1.0)
    rng = np.random.default_rng(seed)
    while True:
        for group in rng.choice(len(members), 1024, p=chances / chances.sum()):
            a = rng.integers(sizes[group])
            b = (a + 1 + rng.integers(sizes[group] - 1)) % sizes[group]
            yield int(members[group][min(a, b)]), int(members[group][max(a, b)])


def _preference(one: Rating, other: Rating, agreement: float) -> Preference | None:
    """The pair of two texts, or None where it is left out."""
    better, worse = (one, other) if one.rating >= other.rating else (other, one)
    gap = better.rating - worse.rating
    if one.text == other.text:
        return None
    if agreement > 0.5 and (gap == 0 or rater_agreement(better, worse) < agreement):
        return None
    return Preference(one.prompt, better.text, worse.text, margin=gap or None, tie=gap == 0)


def _rated(one: Rating, ratings: tuple[float, ...]) -> Rating:
    return Rating(one.text, float(np.mean(ratings)), one.prompt, ratings)


def _check_raters(one: Rating) -> None:
    if len(one.ratings) < 2:
        raise ValueError(
            f"the text {one.text!r} has {len(one.ratings)} ratings of single raters; agreement and halves need two"
        )
