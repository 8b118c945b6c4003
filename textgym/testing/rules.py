"""How the checks refuse."""

from __future__ import annotations

from typing import Any


def demand(holds: Any, message: str) -> None:
    """`assert` that `python -O` keeps."""
    if not holds:
        raise AssertionError(message)
