"""What the scripts share: how they end on an error, and the env that a command line or a checkpoint names."""

from __future__ import annotations

import dataclasses
import json
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import gymnasium as gym
import tyro
from rich.console import Console

from scripts.config_files import expanded
from textgym.arguments import check_argument
from textgym.importing import did_you_mean, imports_limited_to, is_own, texts_in
from textgym.sb3.checkpoints import AgentState, read_agent_state
from textgym.training.state import checkpoint_path, is_checkpoint

console = Console(highlight=False)
PACKAGES = ("textgym", "gymnasium", "numpy", "torch", "transformers", "stable_baselines3", "sacrebleu")
OF_THE_SCRIPTS = ("num_envs", "autoreset_mode")
"""Arguments of `gym.make_vec` that a command line cannot give as arguments of an env."""
ELSEWHERE = {
    "--lr": "--learning-rate",
    "--timesteps": "--total-timesteps",
    "--output-dir": "--out",
    "--model-name-or-path": "--model",
    "--reward-model-path": '--scorer \'{"name": "reward_model", "model": ...}\'',
    "--max-completion-length": "--env-kwargs '{\"max_new_tokens\": ...}'",
    "--max-prompt-length": "--env-kwargs '{\"max_prompt_tokens\": ...}'",
    "--gradient-accumulation-steps": "--micro-batch-size",
    "--bf16": "--dtype bfloat16",
}
"""Options of CleanRL's, stable-baselines3's and TRL's scripts, and what they are called here."""
FOR_ALL = (
    "--config FILE takes options from a YAML file, where the command line does not give them. An error is told in a "
    "line or two; --debug shows its traceback."
)
"""What every help page says."""
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
        arguments: a type or function that `tyro.cli` accepts; the annotations of a dataclass are checked.
        description: the head of the help text.
        given: the command line; by default the process's.
    """
    words = list(sys.argv[1:] if given is None else given)
    parsed = parse(arguments, description, words)
    try:
        main(parsed)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        end(error, words)


def parse(arguments: Any, description: str | None, words: Sequence[str]) -> Any:
    """What a command line says; help and mistakes end the program."""
    about = f"{(description or '').strip()}\n\n{FOR_ALL}"
    try:
        args = [word for word in expanded(words) if word != "--debug"]
        for word in args:
            if (name := word.partition("=")[0]) in ELSEWHERE:
                raise ValueError(f"there is no option {name}; here it is {ELSEWHERE[name]}")
        check_command(arguments, args)
    except (ValueError, OSError) as error:
        end(error, words)
    parsed = tyro.cli(arguments, args=args, description=about.strip())
    try:
        if dataclasses.is_dataclass(parsed):
            check_options(parsed)
    except ValueError as error:
        end(error, words)
    return parsed


def check_command(arguments: Any, words: Sequence[str]) -> None:
    """Refuse a command line that does not begin with one of the commands, where the script has several.

    Raises:
        ValueError: it names the first word.
    """
    marks = [mark for kind in get_args(arguments) for mark in getattr(kind, "__metadata__", ())]
    commands = [mark.name for mark in marks if hasattr(mark, "name")]  # tyro.conf.subcommand's
    if commands and not {"-h", "--help"} & set(words) and (first := [*words, ""][0]) not in commands:
        said = repr(first) if first else "nothing"
        raise ValueError(
            f"the first word must be one of {', '.join(sorted(commands))}, but is {said}{did_you_mean(first, commands)}"
        )


def end(error: Exception, words: Sequence[str]) -> NoReturn:
    """End the program with a line or two about an error; where the command line has `--debug`, with its traceback."""
    if "--debug" in words:
        raise error
    sys.exit(f"{Path(sys.argv[0]).name}: {in_a_line_or_two(error)}")


def in_a_line_or_two(error: Exception) -> str:
    """What is told of an error without its traceback; its notes, such as what to do, in lines of their own."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    message = "\n".join(lines[:2]) + (" ... (--debug shows all of it)" if len(lines) > 2 else "")
    if not lines or not isinstance(error, FOR_USERS):
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {place.filename}, line {place.lineno} (--debug shows more): {message}"
    return "\n".join([message, *getattr(error, "__notes__", [])])


def check_options(options: Any) -> None:
    """Refuse values that the annotations of a dataclass do not accept, those of nested ones included.

    Raises:
        ValueError: it names the option.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check_options(value)
        else:
            check_argument(f"--{field.name.replace('_', '-')}", value, hints[field.name])


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def read_saved(model: str) -> tuple[str, AgentState | None]:
    """A checkpoint's folder and its state; the name itself and None for a plain model."""
    path = checkpoint_path(model)
    return (str(path), read_agent_state(path)) if is_checkpoint(path) else (model, None)


def parse_json(name: str, text: str) -> Any:
    """An argument that is written as JSON.

    Raises:
        ValueError: it is not.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} is not JSON: {error}: {text!r}") from error


def text_or_json(name: str, text: str) -> Any:
    """An argument that is a name, or JSON where it begins like an object or a list of JSON.

    Raises:
        ValueError: it begins so, and is none.
    """
    return parse_json(name, text) if text.lstrip().startswith(("{", "[")) else text


def env_arguments(env_kwargs: str, **shortcuts: str | None) -> dict[str, Any]:
    """The arguments of `gym.make_vec` from the command line's.

    Raises:
        ValueError: `env_kwargs` is no JSON object, has what the script itself sets, or a shortcut is given there as
            well.
    """
    kwargs = parse_json("env-kwargs", env_kwargs)
    if not isinstance(kwargs, dict):
        raise ValueError(f"--env-kwargs must be a JSON object, not {env_kwargs!r}")
    for name in OF_THE_SCRIPTS:
        if name in kwargs:
            raise ValueError(f"--env-kwargs has {name!r}, which the script sets by itself; leave it out")
    for name, value in shortcuts.items():
        if value is None:
            continue
        if name in kwargs:
            raise ValueError(f"{name} is given twice, by --{name} and in --env-kwargs")
        kwargs[name] = text_or_json(name, value)
    return kwargs


def make_env(
    saved: AgentState | None,
    env_id: str | None,
    own: dict[str, Any],
    trust: bool,
    **options: Any,
) -> tuple[gym.vector.VectorEnv[Any, Any, Any], str, dict[str, Any]]:
    """The vector env to use, its id and its arguments: the command line's, else those that a checkpoint has.

    Args:
        saved: the checkpoint's state, or None for a plain model.
        env_id: the command line's, which replaces the checkpoint's arguments too.
        own: the command line's arguments of the env.
        trust: whether to import what only the checkpoint names.
        **options: of `gym.make_vec`, beside the arguments that make the task.

    Raises:
        ValueError: the checkpoint's arguments were objects, so they are not known, and no own ones are given; or the
            checkpoint names a module to import, and is not trusted.
    """
    mode = {"autoreset_mode": "Disabled"}
    if env_id is not None or saved is None or not saved.env_id:
        env_id = env_id or "TextGen-v0"
        return gym.make_vec(env_id, **mode | own | options), env_id, own
    if saved.env_kwargs is None and not own:
        raise ValueError(
            f"the checkpoint was trained on {saved.env_id} with arguments that are no JSON (a function, say), so "
            "they were not saved; name the env with --env-id, and its arguments with --env-kwargs or --scorer"
        )
    kwargs = (saved.env_kwargs or {}) | own
    named = [text for text in texts_in([saved.env_id, kwargs]) if ":" in text and not any(map(str.isspace, text))]
    advice = (
        f"the checkpoint may bring code of its own, as it names {sorted(set(named) - set(texts_in(own)))}; if you "
        "trust it, pass --trust, or repeat it where the script has --scorer, --prompts, --env-kwargs or --env-id"
    )
    if ":" in saved.env_id and not trust and not is_own(saved.env_id):
        raise ValueError(f"env id {saved.env_id!r} is not imported: {advice}")
    with nullcontext() if trust else imports_limited_to(texts_in(own), advice):
        return gym.make_vec(saved.env_id, **mode | kwargs | options), saved.env_id, kwargs
