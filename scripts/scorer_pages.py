"""What the docstrings of the scorers say, in parts."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

SECTIONS = ("Args", "Range", "Cost", "Source", "Example", "Raises")
"""The sections that the docstring of every scorer has, in this order; what stands before them says what it measures."""


def sections(cls: type) -> dict[str, str]:
    """Section -> its text, without its indentation; the text before the first section is under `""`."""
    text = inspect.cleandoc(cls.__doc__ or "")
    start, *parts = re.split(rf"^({'|'.join(SECTIONS)}):", text, flags=re.M)
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    return {"": start.strip()} | {name: inspect.cleandoc(part) for name, part in named.items()}


def example(cls: type) -> Any:
    """The JSON form that a scorer's docstring shows, as the value that it stands for."""
    return json.loads(sections(cls)["Example"].strip("`"))
