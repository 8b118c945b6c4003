"""The references that prompts bring along: what scorers of overlap and of right answers compare a completion with."""

from __future__ import annotations

from textgym.importing import did_you_mean
from textgym.scorers.base import Generations


def references_of(generations: Generations, column: str) -> list[list[str]]:
    """The references of each row's prompt, one or more, from a column of the prompts.

    Args:
        generations: n rows.
        column: its values are texts, or lists of one or more texts.

    Returns:
        n lists of texts.

    Raises:
        ValueError: the prompts have no such column, or one of its values is nothing of these.
    """
    columns = generations.columns
    if column not in columns:
        raise ValueError(
            f"the prompts have no column {column!r} (columns: {list(columns)}){did_you_mean(column, columns)}; give it "
            f'beside each prompt, as in {{"prompt": "2+2=", {column!r}: "4"}}'
        )
    return [_checked(value, column, row, generations) for row, value in enumerate(columns[column])]


def _checked(value: object, column: str, row: int, generations: Generations) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if isinstance(listed, list | tuple) and listed and all(isinstance(text, str) for text in listed):
        return list(listed)
    raise ValueError(
        f"the column {column!r} is {value!r} for the prompt {generations.prompts[row]!r}; it must be a text, or a list "
        "of one or more texts"
    )
