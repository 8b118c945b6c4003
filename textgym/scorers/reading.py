"""What of a row a scorer reads: the completion, with the prompt before it or not, and what it is compared with."""

from __future__ import annotations

from typing import Literal

from textgym.scorers.base import Generations
from textgym.scorers.references import references_of

Of = Literal["completion", "text"]
"""The argument `of`: `"text"` is prompt and completion, as `Generations.texts` has them."""


To = Literal["reference", "prompt"]
"""The argument `to`: what a completion is compared with."""


def texts_of(generations: Generations, of: Of) -> list[str]:
    """The n texts to read; special tokens are left out of both kinds."""
    return generations.completions if of == "completion" else generations.texts


def counterparts_of(generations: Generations, to: To, column: str) -> list[list[str]]:
    """The texts, one or more, that each of n completions is compared with.

    Args:
        generations: n rows.
        to: `"reference"`, or `"prompt"`: the prompt as the source gave it, of a chat its last message.
        column: of the references.

    Raises:
        ValueError: see `references_of`.
    """
    if to == "reference":
        return references_of(generations, column)
    contents = generations.table.contents(generations.prompt_ids)
    return [[content if isinstance(content, str) else content[-1]["content"]] for content in contents]
