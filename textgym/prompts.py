"""Prompts and where they come from.

A prompt is a text or a list of chat messages, with the columns (references, metadata) that stand beside it. A source is
a finite list of them or a sampler function. What is read from a source is a copy of what it gave.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textgym.importing import import_string
from textgym.prompt_sources import PROMPT_SOURCES, PromptLimit, is_named, named_rows
from textgym.text_files import lines_of, parsed

Messages = list[dict[str, str]]
Sampler = Callable[[np.random.Generator], Any]
RESERVED = {"prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra"}
"""Names that no column may have, because reward functions receive something else by them."""

ACCEPTED = (
    "a list of texts, chats or dicts with a 'prompt' key, a .txt or .jsonl file, 'module:attribute', a sampler "
    f"function, or one of {sorted(PROMPT_SOURCES)} or a dict with such a 'name' and its arguments"
)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A text or chat, and its columns."""

    content: str | Messages
    columns: Mapping[str, Any]

    def __eq__(self, other: object) -> bool:
        """Whether content and columns are the same."""
        return isinstance(other, Prompt) and self.content == other.content and self.same_columns(other)

    def same_columns(self, other: Prompt) -> bool:
        """Whether the columns are the same; their values may be arrays."""
        return _same(self.columns, other.columns)


def is_begun(content: str | Sequence[dict[str, Any]]) -> bool:
    """Whether a prompt is a chat that ends with the assistant's message, which the completion then goes on with."""
    return not isinstance(content, str) and content[-1]["role"] == "assistant"


def copied(value: Any) -> Any:
    """A deep copy; of what cannot be changed, the thing itself, which `copy.deepcopy` would find out slowly."""
    if value is None or isinstance(value, str | int | float):
        return value
    if type(value) is list:
        return [copied(item) for item in value]
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return copy.deepcopy(value)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal, or are made up of equal ones; one value is always the same as itself (NaN)."""
    if a is b:
        return True
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b))


def to_prompt(row: Any, where: str) -> Prompt:
    """Read one row of a source; `where` names it in errors."""
    columns: dict[str, Any] = {}
    if isinstance(row, Mapping):
        if wrong := [key for key in row if not isinstance(key, str)]:
            raise ValueError(f"{where} has the key {wrong[0]!r}; keys are texts, the names of columns")
        if "prompt" not in row:
            hint = "; a chat is a list of messages, and a source a list of chats" if "role" in row else ""
            raise ValueError(f"{where} has no 'prompt' key, only {sorted(row)}{hint}")
        columns = {name: value for name, value in row.items() if name != "prompt"}
        row = row["prompt"]
    if reserved := RESERVED & set(columns):
        raise ValueError(f"{where} has a column named {sorted(reserved)[0]!r}, which scorers already receive")
    is_chat = isinstance(row, list) and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in row)
    if not isinstance(row, str) and not (is_chat and row):
        raise ValueError(f"{where} is {row!r}; a prompt is a text or a non-empty list of chat messages")
    try:
        return Prompt(copied(row), copied(columns))
    except Exception as error:  # whatever a value's own class raises
        raise ValueError(f"{where} has a value that cannot be copied: {type(error).__name__}: {error}") from error


def load_prompts(source: Any, limit: PromptLimit | None = None) -> list[Prompt] | Sampler:
    """Read a prompt source.

    Args:
        source: an iterable of texts, of chats (lists of `{"role", "content"}` messages) or of dicts whose `"prompt"` is
            one of these and whose other keys are columns, such as a `datasets.Dataset`; a `.txt` file (a prompt per
            line) or a `.jsonl` file (a dict per line), both in UTF-8; a name of `PROMPT_SOURCES`, such as `"reviews"`,
            or a dict of the name and arguments, such as `{"name": "reviews", "split": "test"}`; an import string
            `"module:attribute"` of any of these; or a function of a `numpy.random.Generator` that returns one prompt.
            Where a chat ends with the assistant's message, the completion goes on with it.
        limit: what the env takes, for sources that depend on it; None where there is no env.

    Raises:
        ValueError: none of these, no prompt at all, a malformed line (its number), rows whose columns differ, or a
            function that takes something else.
        FileNotFoundError: the file does not exist.
        IsADirectoryError: it is a directory.
    """
    if is_named(source):
        return load_prompts(named_rows(source, limit))
    if isinstance(source, str | Path):
        if Path(source).suffix in (".txt", ".jsonl"):
            rows = _read_file(Path(source))
        elif ":" in str(source):
            found = import_string(str(source), what="prompt source")
            try:
                return load_prompts(found, limit)
            except ValueError as error:
                raise ValueError(f"prompt source {str(source)!r}: {error}") from error
        else:
            raise ValueError(f"unknown prompt source {str(source)!r}; accepted are {ACCEPTED}")
    elif callable(source):
        return _checked_sampler(source)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | Set | bytes):  # a set has no lasting order
        rows = [to_prompt(row, f"prompt {i}") for i, row in enumerate(source)]
    else:
        raise ValueError(f"a prompt source cannot be a {type(source).__name__}; accepted are {ACCEPTED}")
    if not rows:
        raise ValueError("the prompt source is empty; for unconditional generation use the empty prompt, ['']")
    for i, row in enumerate(rows):
        if set(row.columns) != set(rows[0].columns):
            raise ValueError(f"prompt {i} has columns {sorted(row.columns)}, prompt 0 {sorted(rows[0].columns)}")
    return rows


def _checked_sampler(function: Callable[..., Any]) -> Sampler:
    """A prompt sampler, if it can be called as one."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise ValueError(
            f"{function!r} is no prompt sampler, a function of a numpy.random.Generator: {error}"
        ) from error
    except ValueError:  # some functions written in C do not say what they take
        pass
    return function


def _read_file(path: Path) -> list[Prompt]:
    """Prompts of a `.txt` or `.jsonl` file."""
    rows = []
    for where, line in lines_of(path, "prompt"):
        if not line.strip():
            raise ValueError(f'{where} is blank; an empty prompt is written {{"prompt": ""}} in a .jsonl file')
        rows.append(to_prompt(parsed(line, where) if path.suffix == ".jsonl" else line, where))
    return rows
