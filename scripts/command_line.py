"""What the scripts share: the env that a command line or a checkpoint names, and how a text is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from textgym.sb3.checkpoints import checkpoint_path, read_json


@dataclass(frozen=True)
class Sample:
    """One episode as text."""

    prompt: str
    completion: str
    reward: float


def show_sample(sample: Sample, console: Console) -> None:
    """Print one line: the reward, the prompt in bold, the completion."""
    prompt, completion = (escape(text.replace("\n", "\\n")) for text in (sample.prompt, sample.completion))
    console.print(f"[cyan]{sample.reward:+.3f}[/] [bold]\\[{prompt}][/]{completion}", highlight=False, soft_wrap=True)


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
        kwargs[name] = json.loads(value) if value.lstrip().startswith(("{", "[")) else value
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
