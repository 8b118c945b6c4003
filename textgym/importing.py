"""Import strings (`"module:attribute"` in kwargs keeps an env's spec JSON), optional packages, spelling hints."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from functools import reduce
from typing import Any


def import_string(path: str, what: str) -> Any:
    """The object that `"module:attribute"` names; modules in the working directory are found too.

    Raises:
        ValueError: it is no such string, or the module or the attribute does not exist; `what` names the thing wanted.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise ValueError(f"{what} {path!r} is no import string; one is 'module:attribute'")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module was found, and imports something that is missing
        raise ValueError(f"{what} {path!r}: there is no module {module_name!r}") from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ValueError(
            f"{what} {path!r}: module {module_name!r} has no {attribute!r}{did_you_mean(attribute, public)}"
        ) from error


def require(module: str, extra: str) -> Any:
    """Import a module, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # the package is there; something that it needs is not
        raise ImportError(f'the package {module} is missing: pip install "textgym[{extra}]"') from error


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """`"; did you mean 'a' or 'b'?"`, or nothing if no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
