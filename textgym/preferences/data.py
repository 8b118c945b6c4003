"""Preferences, ratings and demonstrations, read from JSON lines, a `datasets.Dataset`, or any iterable of rows.

The columns are those of TRL's preference format, `prompt`, `chosen` and `rejected`, with `margin` as its reward trainer
reads it, and of its prompt-completion and language-modelling formats, `prompt` and `completion`, or `text`. Left out:
TRL's unpaired and stepwise formats, and conversations that are learned whole (`messages`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from textgym.arguments import CheckedArguments, Finite, NonNegative, check_argument
from textgym.importing import did_you_mean
from textgym.text_files import lines_of, parsed
from textgym.tokenizers import Tokenizer, make_tokenizer

Row = TypeVar("Row", bound="Preference | Rating | Demonstration")


@dataclass(frozen=True)
class Preference(CheckedArguments):
    """Two completions of one prompt, and which of them was preferred. `prompt + chosen` is the better text.

    Attributes:
        prompt: what both go on with; "" where `chosen` and `rejected` are whole texts (TRL's implicit prompt).
        chosen: the better completion.
        rejected: the other one.
        margin: by how much it was better, the difference of two ratings, at least 0; None where nobody said.
        tie: neither was better; `chosen` and `rejected` are then just the two completions.

    Raises:
        ValueError: a completion is blank, both are equal, or a tie has a margin.
    """

    prompt: str
    chosen: str
    rejected: str
    margin: NonNegative | None = None
    tie: bool = False

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        for name in ("chosen", "rejected"):
            _check_text(name, getattr(self, name))
        if self.chosen == self.rejected:
            raise ValueError(f"chosen and rejected are the same text, {self.chosen!r}; such a pair says nothing")
        if self.tie and self.margin:
            raise ValueError(f"a tie has no margin, but margin is {self.margin!r}")


@dataclass(frozen=True)
class Rating(CheckedArguments):
    """A text and what people gave it.

    Attributes:
        text: what was rated, without the prompt.
        rating: the mean of the raters.
        prompt: what the text goes on with; "" where it stands alone.
        ratings: what each rater gave, the raters in the same order beside all texts where that is known; () where only
            the mean is known.

    Raises:
        ValueError: the text is blank, or `rating` is not the mean of `ratings`.
    """

    text: str
    rating: Finite
    prompt: str = ""
    ratings: tuple[Finite, ...] = ()

    def __post_init__(self) -> None:
        """Check the text and the mean."""
        _check_text("text", self.text)
        for value in self.ratings:
            check_argument("one of ratings", value, Finite)
        mean = math.fsum(self.ratings) / max(1, len(self.ratings))
        if self.ratings and not math.isclose(mean, self.rating, abs_tol=1e-6):
            raise ValueError(f"rating is {self.rating}, but the mean of its {len(self.ratings)} ratings is {mean}")


@dataclass(frozen=True)
class Demonstration(CheckedArguments):
    """A text as it should be, `prompt + completion`.

    Attributes:
        prompt: what is given; "" where the completion is the whole text.
        completion: what should be written then.

    Raises:
        ValueError: the completion is blank.
    """

    prompt: str
    completion: str

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        _check_text("completion", self.completion)


def read_preferences(source: Any, name: str = "preferences", *, tokenizer: Any = None) -> list[Preference]:
    """Read pairs.

    Rows need `chosen` and `rejected`, and may have `prompt`, `margin` and `tie`; other columns are passed over, as TRL
    does. Where the first row has no `prompt`, none may have one, and `chosen` and `rejected` are whole texts.

    Args:
        source: a file of JSON lines in UTF-8, or an iterable of mappings, such as a `datasets.Dataset`, or of
            `Preference`.
        name: what it is called in errors.
        tokenizer: what `textgym.tokenizers.make_tokenizer` takes. It allows TRL's conversational form: a prompt that
            is a list of messages becomes the text that its chat template makes of it, ready for the assistant's turn,
            and `chosen` and `rejected` are the contents of the one assistant's message that each of them holds.

    Raises:
        ValueError: a row is no JSON (a file that was cut, say), lacks a column, or holds no preference; the line, or
            the row's number from 0, is named. There is no row at all.
        FileNotFoundError: the file does not exist.
        IsADirectoryError: it is a directory.
    """
    known = None if tokenizer is None else make_tokenizer(tokenizer)

    def to_preference(columns: dict[str, Any]) -> Preference:
        return Preference(**{"prompt": ""} | {key: _as_text(key, value, known) for key, value in columns.items()})

    return _read(source, name, Preference, to_preference)


def read_ratings(source: Any, name: str = "ratings", *, scale: tuple[float, float] | None = None) -> list[Rating]:
    """Read ratings.

    Rows need `text` and `rating`, and may have `prompt` and `ratings`, a list; other columns are passed over.

    Args:
        source: as for `read_preferences`.
        name: what it is called in errors.
        scale: the least and the most that a rater can give; None where that is not known.

    Raises:
        ValueError: as for `read_preferences`; a rating is no number, or lies outside the scale.
        FileNotFoundError: the file does not exist.
        IsADirectoryError: it is a directory.
    """
    least, most = scale or (-math.inf, math.inf)

    def to_rating(columns: dict[str, Any]) -> Rating:
        listed = columns.get("ratings", ())
        row = Rating(**{"prompt": ""} | columns | {"ratings": tuple(listed) if isinstance(listed, list) else listed})
        for value in (row.rating, *row.ratings):
            if not least <= value <= most:
                raise ValueError(f"rating is {value}, outside the scale from {least} to {most}")
        return row

    return _read(source, name, Rating, to_rating)


def read_demonstrations(source: Any, name: str = "demonstrations", *, tokenizer: Any = None) -> list[Demonstration]:
    """Read texts that should be learned.

    Rows need `completion` or, where the first row has none, `text`, and may have `prompt`; other columns are passed
    over.

    Args:
        source: as for `read_preferences`; no iterator, since its first row is read twice.
        name: what it is called in errors.
        tokenizer: as for `read_preferences`; the completion of a conversation is one assistant's message.

    Raises:
        ValueError: as for `read_preferences`.
        FileNotFoundError: the file does not exist.
        IsADirectoryError: it is a directory.
    """
    known, columns = None if tokenizer is None else make_tokenizer(tokenizer), first_columns(source, name)
    column = "text" if "text" in columns and "completion" not in columns else "completion"

    def to_demonstration(columns: dict[str, Any]) -> Demonstration:
        return Demonstration(**{"prompt": ""} | {key: _as_text(key, value, known) for key, value in columns.items()})

    return _read(source, name, Demonstration, to_demonstration, {"completion": column})


def first_columns(source: Any, name: str) -> set[str]:
    """The columns of the first row, which say what kind of rows there are; none where there is no row.

    Args:
        source: as for `read_preferences`; an iterator would lose the row.
        name: what it is called in errors.

    Raises:
        ValueError: it is no source of rows, or the first line is no JSON.
        FileNotFoundError: the file does not exist.
        IsADirectoryError: it is a directory.
    """
    for _, row in _places(source, name):
        return set(row if isinstance(row, Mapping) else getattr(row, "__dict__", ()))
    return set()


def _read(
    source: Any,
    name: str,
    kind: type[Row],
    convert: Callable[[dict[str, Any]], Row],
    renamed: Mapping[str, str] | None = None,
) -> list[Row]:
    """Rows of one kind; `convert` makes them of the columns that the kind has, which `renamed` may call otherwise."""
    found: list[Row] = []
    prompted: bool | None = None
    for where, row in _places(source, name):
        try:
            columns = vars(row) if isinstance(row, kind) else _columns(row, kind, renamed or {})
            prompted = "prompt" in columns if prompted is None else prompted
            if prompted != ("prompt" in columns):
                raise ValueError(f"it {'lacks' if prompted else 'has'} the column 'prompt', unlike the row before")
            found.append(convert(columns))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if not found:
        raise ValueError(f"{name}: there is no row in {source!r}")
    return found


def _places(source: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every row, behind what names it."""
    if isinstance(source, str | Path):
        for where, line in lines_of(Path(source), name):
            yield where, parsed(line, where)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | Set | bytes):
        yield from ((f"row {number} of the {name}", row) for number, row in enumerate(source))
    else:
        parts = f" with {list(source)}" if isinstance(source, Mapping) else ""
        raise ValueError(
            f"{name} cannot be a {type(source).__name__}{parts}; accepted are a file of JSON lines, and an iterable of "
            "rows, such as a datasets.Dataset"
        )


def _columns(row: Any, kind: type[Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The columns that the kind has; those that are None count as left out, as a `datasets.Dataset` fills them in."""
    if not isinstance(row, Mapping):
        raise ValueError(f"it is {row!r}, not a row with columns")
    optional = {field.name: field.default is not MISSING for field in fields(kind)} | {"prompt": True}
    columns = {name: value for name in optional if (value := row.get(renamed.get(name, name))) is not None}
    for name, may_lack in optional.items():
        if not may_lack and name not in columns:
            lacking = renamed.get(name, name)
            raise ValueError(
                f"it lacks the column {lacking!r}{did_you_mean(lacking, row)}; its columns are {list(row)}"
            )
    return columns


def _as_text(column: str, value: Any, tokenizer: Tokenizer | None) -> Any:
    """A column's value; messages as text."""
    if not isinstance(value, list):
        return value
    if tokenizer is None:
        raise ValueError(
            f"{column!r} is a list of messages; to read TRL's conversational form, pass the tokenizer whose chat "
            "template makes texts of them: read_preferences(..., tokenizer=...)"
        )
    if column == "prompt":
        return tokenizer.apply_chat_template(value)
    if len(value) != 1 or not isinstance(value[0], Mapping) or value[0].get("role") != "assistant":
        raise ValueError(f"{column!r} is {value!r}; it must be one message of the assistant's, behind the prompt")
    return value[0].get("content")


def _check_text(name: str, text: str) -> None:
    """Refuse a text in which there is nothing to read."""
    if not text.strip():
        raise ValueError(f"{name} is blank, {text!r}")
