"""Scorers: what an env pays for a finished text, or for each token.

The classes of `registry.SCORERS` are imported when they are asked for, so naming one imports no other. None of them
imports torch, transformers or vaderSentiment before it is built.
"""

from __future__ import annotations

from typing import Any

from textgym.scorers.base import Generations, Scorer, ScorerError, Scores
from textgym.scorers.registry import SCORERS, make_scorer, scorer_class

_CLASSES = {path.partition(":")[2]: name for name, path in SCORERS.items()}

__all__ = ["Generations", "Scorer", "ScorerError", "Scores", "make_scorer", *_CLASSES]


def __getattr__(name: str) -> Any:
    """The classes of `SCORERS`, by their own names."""
    if name in _CLASSES:
        return scorer_class(_CLASSES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Everything public, imported or not."""
    return sorted(__all__)
