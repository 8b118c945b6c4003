"""What the scripts share: how they end on an error, and the env that a command line or a checkpoint names."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import tyro
from rich.console import Console

from textgym.sb3.checkpoints import checkpoint_path, read_json

console = Console(highlight=False)
FOR_USERS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, gym.error.Error)
"""Errors whose messages are written for users; of others the kind and the place are told as well."""


def run_script(
    main: Callable[[Any], Any], arguments: Any, description: str | None = None, given: Sequence[str] | None = None
) -> None:
    """Parse the command line and call `main` with what it says.

    An error ends the program with status 1 and a line or two on standard error. With `--debug` anywhere on the command
    line, its traceback is shown instead.

    Args:
        main: the script.
        arguments: a type or function that `tyro.cli` accepts.
        description: the head of the help text.
        given: the command line; by default the process's.
    """
    words = list(sys.argv[1:] if given is None else given)
    debug = "--debug" in words
    about = f"{(description or '').strip()}\n\nAn error is told in a line or two; --debug shows its traceback."
    parsed = tyro.cli(arguments, args=[word for word in words if word != "--debug"], description=about.strip())
    try:
        main(parsed)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if debug:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {in_a_line_or_two(error)}")


def in_a_line_or_two(error: Exception) -> str:
    """What is told of an error without its traceback."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    message = "\n".join(lines[:2]) + (" ... (--debug shows all of it)" if len(lines) > 2 else "")
    if lines and isinstance(error, FOR_USERS):
        return message
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.filename}, line {place.lineno} (--debug shows more): {message}"


def read_saved(model: str) -> tuple[str, dict[str, Any]]:
    """A checkpoint's directory and its `algorithm.json`; the name itself and {} for a plain model."""
    path: Path = checkpoint_path(model)
    return (str(path), read_json(path)) if (path / "algorithm.json").is_file() else (model, {})


def parse_json(name: str, text: str) -> Any:
    """An argument that is written as JSON.

    Raises:
        ValueError: it is not.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} is not JSON: {error}: {text!r}") from error


def env_arguments(env_kwargs: str, **shortcuts: str | None) -> dict[str, Any]:
    """The arguments of `gym.make_vec` from the command line's.

    Raises:
        ValueError: `env_kwargs` is no JSON object, or a shortcut is given there as well.
    """
    kwargs = parse_json("env-kwargs", env_kwargs)
    if not isinstance(kwargs, dict):
        raise ValueError(f"--env-kwargs must be a JSON object, not {env_kwargs!r}")
    for name, value in shortcuts.items():
        if value is None:
            continue
        if name in kwargs:
            raise ValueError(f"{name} is given twice, by --{name} and in --env-kwargs")
        kwargs[name] = parse_json(name, value) if value.lstrip().startswith(("{", "[")) else value
    return kwargs


def env_of(
    saved: dict[str, Any], env_id: str | None, env_kwargs: str, **shortcuts: str | None
) -> tuple[str, dict[str, Any]]:
    """The id and arguments of the env to use: the command line's, else those that a checkpoint was trained with.

    Args:
        saved: the checkpoint's `algorithm.json`, or {} for a plain model.
        env_id: the command line's, which replaces the checkpoint's arguments too.
        env_kwargs: JSON.
        **shortcuts: further arguments, None where not given.

    Raises:
        ValueError: the checkpoint's arguments were objects, so they are not known, and no `--env-kwargs` are given.
    """
    kwargs = env_arguments(env_kwargs, **shortcuts)
    if env_id is not None or not saved.get("env_id"):
        return env_id or "TextGen-v0", kwargs
    if saved["env_kwargs"] is None and not kwargs:
        raise ValueError(
            f"the checkpoint was trained on {saved['env_id']} with arguments that are no JSON (a function, say), so "
            "they were not saved; name the env with --env-id, and its arguments with --env-kwargs or --scorer"
        )
    return saved["env_id"], (saved["env_kwargs"] or {}) | kwargs
