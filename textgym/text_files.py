"""Lines of UTF-8 files and rows of JSON lines, with the place of whatever is wrong with them."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from textgym.files import whole_file


def lines_of(path: Path, what: str) -> Iterator[tuple[str, str]]:
    """The lines of a UTF-8 file, with or without a byte-order mark, each behind its place ("line 3 of 'p.txt'").

    Only newlines of the three usual kinds end a line. `str.splitlines` would also end it at characters such as U+2028,
    which JSON leaves as they are.

    Args:
        path: the file.
        what: what it is called in errors, such as "prompt".

    Raises:
        ValueError: it is not UTF-8.
        FileNotFoundError: it does not exist.
        IsADirectoryError: it is a directory.
    """
    if path.is_dir():
        raise IsADirectoryError(f"the {what} file {str(path)!r} is a directory")
    if not path.is_file():
        raise FileNotFoundError(f"the {what} file {str(path)!r} does not exist")
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = len(data[: error.start + 1].splitlines())  # of bytes: at the same three only
        raise ValueError(f"line {number} of {str(path)!r} is not UTF-8 ({error}); save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{str(path)!r} holds the character U+0000, as if it were UTF-16; save the file as UTF-8")
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        yield f"line {number} of {str(path)!r}", line.removesuffix("\n")


def parsed(line: str, where: str) -> Any:
    """The JSON value of one line.

    Raises:
        ValueError: it is blank, cut, or otherwise no JSON; `where` names it.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # malformed, a number too long, or nested too deep
        raise ValueError(f"{where} is not JSON that can be read: {error}") from error


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, all of them or, if the process ends before, none: the old file is then still there.

    Raises:
        OSError: it could not be written; the disk is full, say.
    """
    with whole_file(path) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
