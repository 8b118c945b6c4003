"""Entries of a comparison: an agent of `scripts/train.py` with arguments of its own, as one text."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, replace

import tyro

from scripts.agent_arguments import COMMANDS, EnvArgs, RunArgs, TrainArgs, command_name

SHARED = {"run", "env", "evaluation", "model", "reference", "seed", "device"}
"""Fields of `TrainArgs` that are one and the same for all entries."""
ROWS = {"n_envs", "num_generations"}
"""Fields of `EnvArgs` that an entry may set for its training."""


def command_of(entry: str, run: RunArgs, env: EnvArgs, model: str | None, device: str) -> TrainArgs:
    """The arguments of `scripts/train.py` that an entry stands for; a value of a wrong type ends the program.

    Raises:
        ValueError: an unknown agent or argument.
    """
    name, _, listed = entry.partition(":")
    if name not in COMMANDS:
        raise ValueError(f"unknown agent {name!r}; accepted are {sorted(COMMANDS)}")
    accepted, options = sorted({f.name for f in fields(COMMANDS[name])} - SHARED | ROWS), []
    for item in re.split(r",(?=\w+=)", listed) if listed else []:  # a comma inside a value is not followed by name=
        option, equals, value = item.partition("=")
        if not equals or option not in accepted:
            raise ValueError(f"{item!r} in {entry!r} is not name=value with an argument of {name}: {accepted}")
        options.append(f"--{option}={value}")
    command = tyro.cli(
        COMMANDS[name],
        args=options,
        default=COMMANDS[name](run, env=env),
        prog=f"python scripts/train.py {name}",
        config=(tyro.conf.FlagConversionOff,),
    )
    return replace(command, model=model, device=device)  # type: ignore[call-arg]  # made at run time


def shell_command(command: TrainArgs) -> str:
    """What trains the same with checkpoints: `python scripts/train.py` with all that is not the default."""
    name = command_name(command.algorithm)
    words = ["python", "scripts/train.py", name, f"--total-timesteps={command.run.total_timesteps}"]
    for part, default in ((command.env, EnvArgs()), (command, COMMANDS[name](command.run, command.env))):
        for option in fields(part):
            value, flag = getattr(part, option.name), option.name.replace("_", "-")
            if value == getattr(default, option.name):
                continue
            words.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}")
    return shlex.join(words)
