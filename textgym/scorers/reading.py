"""What of a row a scorer reads: the completion alone, or the prompt before it as well."""

from __future__ import annotations

from typing import Literal

from textgym.scorers.base import Generations

Of = Literal["completion", "text"]
"""The argument `of`: `"text"` is prompt and completion, as `Generations.texts` has them."""


def texts_of(generations: Generations, of: Of) -> list[str]:
    """The n texts to read; special tokens are left out of both kinds."""
    return generations.completions if of == "completion" else generations.texts
