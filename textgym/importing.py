"""Import strings (`"module:attribute"` in kwargs keeps an env's spec JSON), optional packages, spelling hints."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any

NAMED = {"textgym.guessing", "textgym.bridges.openenv_tasks"}
"""Modules of this package that are made to be named in an env's arguments, so that a checkpoint may name them, too."""

_limit: ContextVar[tuple[frozenset[str], str] | None] = ContextVar("limit", default=None)


@contextmanager
def imports_limited_to(allowed: Iterable[str], advice: str) -> Iterator[None]:
    """Within the block `import_string` refuses all but the allowed paths and what `NAMED` has, whoever asks for them.

    Args:
        allowed: import strings.
        advice: what the error says of others.
    """
    token = _limit.set((frozenset(allowed), advice))
    try:
        yield
    finally:
        _limit.reset(token)


def is_own(path: str) -> bool:
    """Whether an import string begins with a module of this package, whose import does nothing."""
    module, colon, _ = path.partition(":")
    return bool(colon) and f"{module}.".startswith(f"{__package__}.")


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(part)


def import_string(path: str, what: str) -> Any:
    """The object that `"module:attribute"` names; modules in the working directory are found too.

    Raises:
        ValueError: it is no such string, or the module or the attribute does not exist, or it is not to be imported
            (`imports_limited_to`); `what` names the thing wanted.
    """
    limit = _limit.get()
    refusal = None if limit is None or path in limit[0] else ValueError(f"{what} {path!r} is not imported: {limit[1]}")
    module_name, _, attribute = path.partition(":")
    if refusal and module_name not in NAMED:
        raise refusal
    if not module_name or not attribute or module_name.startswith("."):
        raise ValueError(f"{what} {path!r} is no import string; one is 'module:attribute'")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module was found, and imports something that is missing
        raise ValueError(f"{what} {path!r}: there is no module {module_name!r}; {_spelling(path)}") from error
    try:
        found = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ValueError(
            f"{what} {path!r}: module {module_name!r} has no {attribute!r}{did_you_mean(attribute, public)}"
        ) from error
    if refusal and getattr(found, "__module__", None) != module_name:
        raise refusal  # what a module imports is not its own
    return found


def _spelling(path: str) -> str:
    """What may be wrong with an import string whose module does not exist."""
    module_name, _, attribute = path.partition(":")
    if module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("/").replace("/", ".")
        return f"modules are named without .py, did you mean '{dotted}:{attribute}'?"
    return f"modules are found in the working directory, {os.getcwd()!r}, and in the folders of PYTHONPATH"


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
