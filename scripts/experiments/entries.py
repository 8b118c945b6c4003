"""Entries of a comparison: an agent of `scripts/train.py` with arguments of its own, as one text or as a YAML file."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

import tyro

from scripts.agent_arguments import COMMANDS, EnvArgs, RunArgs, TrainArgs, command_name
from scripts.config_files import AGENT, as_text, changed, read
from textgym.importing import did_you_mean

SHARED = {"run", "env", "evaluation", "model", "reference", "seed", "device"}
"""Fields of `TrainArgs` that are one and the same for all entries."""
ROWS = {"n_envs", "num_generations"}
"""Fields of `EnvArgs` that an entry may set for its training."""


def label(entry: str) -> str:
    """What an entry is called in tables and folders: itself, or a file's name without its ending."""
    return Path(entry).stem if is_file(entry) else entry


def is_file(entry: str) -> bool:
    """Whether an entry is a YAML file."""
    return entry.endswith((".yaml", ".yml"))


def settings_of(entry: str) -> tuple[str, dict[str, str]]:
    """The agent's name, and its arguments as a command line writes them.

    Raises:
        ValueError: it is neither `name:argument=value,argument=value` nor a file that `train.py --config` takes.
        OSError: the file cannot be read.
    """
    if is_file(entry):
        options = read(Path(entry))
        name = options.pop(AGENT, label(entry))
        return name, {option.replace("-", "_"): as_text(value) for option, value in options.items()}
    name, _, listed = entry.partition(":")
    settings = {}
    for item in re.split(r",(?=\w+=)", listed) if listed else []:  # a comma inside a value is not followed by name=
        option, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} in {entry!r} is not name=value")
        if option in settings:
            raise ValueError(f"{entry!r} has {option!r} twice")
        settings[option] = value
    return name, settings


def command_of(entry: str, run: RunArgs, env: EnvArgs, model: str | None, device: str) -> TrainArgs:
    """The arguments of `scripts/train.py` that an entry stands for; a value of a wrong type ends the program.

    Raises:
        ValueError: an unknown agent or argument.
    """
    name, settings = settings_of(entry)
    if name not in COMMANDS:
        raise ValueError(f"unknown agent {name!r}{did_you_mean(name, COMMANDS)}; accepted are {sorted(COMMANDS)}")
    accepted = sorted({f.name for f in fields(COMMANDS[name])} - SHARED | ROWS)
    if unknown := [option for option in settings if option not in accepted]:
        wrong = f"{unknown[0]!r}, which is no argument of {name}{did_you_mean(unknown[0], accepted, 0.7)}"
        raise ValueError(f"{entry!r} has {wrong}; accepted are {accepted}")
    command = tyro.cli(
        COMMANDS[name],
        args=[f"--{option}={value}" for option, value in settings.items()],
        default=COMMANDS[name](run, env=env),
        prog=f"python scripts/train.py {name}",
        config=(tyro.conf.FlagConversionOff,),
    )
    return replace(command, model=model, device=device)  # type: ignore[call-arg]  # made at run time


def shell_command(command: TrainArgs) -> str:
    """What trains the same with checkpoints: `python scripts/train.py` with all that is not the default."""
    name = command_name(command.algorithm)
    words = changed(command, COMMANDS[name](RunArgs(command.run.out)))
    return shlex.join(["python", "scripts/train.py", name, *words])
