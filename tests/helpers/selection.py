"""What `make check` leaves out: tests that start processes, run the docs, or load a large model.

It also leaves out `tests/agents` and `tests/scripts`, which train.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

DOCS = ("test_docs", "test_readme", "test_pages")
"""Beginnings of the names of test modules that run what the docs show."""


@cache
def starting_processes(path: Path) -> frozenset[str]:
    """The functions of a test module that start a process, themselves or through others of the module."""
    functions = {
        node.name: {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        | {argument.arg for argument in node.args.args}  # fixtures
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    found: set[str] = {"subprocess", "multiprocessing", "run_python"}
    while more := {name for name, used in functions.items() if used & found} - found:
        found |= more
    return frozenset(found)


def mark(items: list[pytest.Item]) -> None:
    """Mark what can be told from names and source."""
    for item in items:
        if item.path.name.startswith(DOCS):
            item.add_marker("docs")
        if "smollm2" in item.name:
            item.add_marker("large")
        if item.originalname in starting_processes(item.path):  # type: ignore[attr-defined]
            item.add_marker("subprocess")
