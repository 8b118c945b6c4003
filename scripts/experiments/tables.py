"""Tables of experiments, for the terminal and as Markdown: the first column names a row, the others hold numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table


def readable(entry: str) -> str:
    """An entry with spaces where a line may break."""
    return re.sub(r"([:,])(?! )", r"\1 ", entry)


def terminal(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """For the terminal: a long name is folded, a number never."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column(head[0], overflow="fold")
    for heading in head[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, *numbers in rows:
        table.add_row(escape(readable(name)), *numbers)
    return table


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As Markdown, the names as code."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *([f"`{name}`", *numbers] for name, *numbers in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
