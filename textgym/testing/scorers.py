"""The check of a scorer. Left out: whether its rewards make sense."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from textgym.scorers import Generations, Scorer, make_scorer
from textgym.scorers.base import FloatArray
from textgym.testing.generations import make_generations, values_of, values_of_call
from textgym.testing.rules import demand

PROMPTS = ("The film was", "", "It is a")
COMPLETIONS = ("", " good", " a good, good film.", "abab?") + (
    "Cre\u0300me bru\u0302le\u0301e",  # each accent a character of its own
    "这部电影很好。",
    "فيلمٌ جيّدٌ جدًّا",
    "यह फ़िल्म अच्छी है।",
    "👩🏽‍🚀🎬👍🏽",  # an astronaut of three code points and a joiner
)
BATCHES = {1: "evaluated alone", 2: "evaluated two rows at a time", 7: "evaluated seven rows at a time"}
"""Rows of a batch -> how a message says it."""
LONGEST_SHOWN = 80
"""Characters of a text in a message."""


def check_scorer(
    scorer: Any,
    *,
    prompts: Sequence[Any] = PROMPTS,
    completions: Sequence[str] = COMPLETIONS,
    tokenizer: Any = "bytes",
    tolerance: float = 1e-4,
    pickles: bool = False,
    rows: int = 1000,
    longest: int = 10_000,
) -> None:
    """Check that a scorer keeps its contract, on every pair of a prompt and a completion.

    One finite float64 per row and component (NaN for a component that does not apply beside one that does), also for an
    empty completion, for texts of several scripts and for a very long one; the same values when asked again, in another
    order, one, two or seven rows at a time, and in a large batch of the same rows again and again; nothing paid to rows
    that have not ended, unless it pays per token; and its arguments left as they are. A token scorer is asked token by
    token, as an env does, and of the long text for its last token.

    The pairs are scored six times and the large batch once. A model for which that takes long can do with fewer `rows`,
    a `longest` text that it can read, and a shorter list of `completions`.

    Args:
        scorer: anything that `make_scorer` accepts.
        prompts: as `make_generations` takes them; give the columns that the scorer reads.
        completions: texts. By default one is empty, and others are of the scripts of Latin with combining accents,
            Chinese, Arabic and Hindi, and of emoji.
        tokenizer: see `textgym.tokenizers.make_tokenizer`.
        tolerance: absolute and relative, for what floating point does to another batch.
        pickles: check that a pickled copy gives the same values.
        rows: of the large batch, made of the pairs over and over; 0 leaves it out.
        longest: characters of the long text, which is the longest completion over and over; 0 leaves it out.

    Raises:
        AssertionError: the contract is broken; the message says where.
        ValueError: the scorer is none, or a component of it has a name that it cannot have (see `make_scorer`).
        ScorerError: the scorer failed, or its values are not one finite float per row.
    """
    built = make_scorer(scorer)
    names = built.component_names
    demand(len(set(names)) == len(names), f"scorer {built.name!r} has component names twice: {names}")
    pairs = list(itertools.product(prompts, completions))
    batch = make_generations([prompt for prompt, _ in pairs], [text for _, text in pairs], tokenizer=tokenizer)
    values, everything = values_of(built, batch), np.arange(len(batch))

    def same(index: Any, when: str, other: Scorer = built) -> None:
        part = _rows(batch, index)
        _compare(built.name, part, values[:, index], values_of(other, part), tolerance, when)

    same(everything, "asked again")
    same(everything[::-1], "with the rows in reverse order")
    for size, when in BATCHES.items():
        for start in range(0, len(batch), size):
            same(everything[start : start + size], when)
    if rows:
        same(np.arange(rows) % len(batch), f"in a batch of {rows} rows")
    if pickles:
        same(everything, "pickled and unpickled", pickle.loads(pickle.dumps(built)))
    if not built.per_token:
        _check_unfinished(built, batch, values, tolerance)
    if longest:
        _check_long(built, _long_text(prompts[0], completions, longest, tokenizer), tolerance)


def _long_text(prompt: Any, completions: Sequence[str], length: int, tokenizer: Any) -> Generations:
    """The longest completion over and over, up to a number of characters, and the last completion beside it."""
    once = max(completions, key=len)
    text = (once * (length // max(1, len(once)) + 1))[:length]
    return make_generations([prompt, prompt], [text, completions[-1]], tokenizer=tokenizer)


def _rows(batch: Generations, index: Any) -> Generations:
    """Some rows of a batch, as rows 0, 1, ... of another one."""
    return replace(batch.select(index), rows=np.arange(len(index)))


def _compare(name: str, batch: Generations, want: FloatArray, got: FloatArray, tolerance: float, when: str) -> None:
    """Values of a batch, (components, n) or (components, n, T), are nearly the same."""
    differs = ~np.isclose(want, got, rtol=tolerance, atol=tolerance, equal_nan=True)
    if differs.any():
        where = tuple(np.argwhere(differs)[0])
        text = batch.completions[where[1]]
        written = repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}... ({len(text)} characters)"
        raise AssertionError(
            f"scorer {name!r}, {when}, gives {got[where]:.6g} instead of {want[where]:.6g} for "
            f"{batch.prompts[where[1]]!r} -> {written}"
        )


def _check_unfinished(scorer: Scorer, batch: Generations, values: FloatArray, tolerance: float) -> None:
    ended = np.arange(len(batch)) % 2 == 0
    paid = values_of_call(scorer, replace(batch, ended=ended))
    demand(
        not paid[0, ~ended].any(), f"scorer {scorer.name!r} does not pay per token, but pays rows that have not ended"
    )
    want, got = values[:, ended], paid[:, ended]
    _compare(scorer.name, batch.select(ended), want, got, tolerance, "beside rows that have not ended")


def _check_long(scorer: Scorer, batch: Generations, tolerance: float) -> None:
    """The values of a long text are finite, and it and the short one beside it are worth what they are alone."""
    values = values_of_call(scorer, batch)
    for row in range(len(batch)):
        part = _rows(batch, [row])
        _compare(scorer.name, part, values[:, [row]], values_of_call(scorer, part), tolerance, "not beside a long text")
