"""Options from a YAML file: `python scripts/train.py --config run.yaml --n-envs 32`.

The file is a mapping from the names of options, with `-` or `_` between their words, to values; what the command line
says itself counts. `agent` names the agent of `scripts/train.py`. A value that an option takes as JSON may be written
as a mapping. Values become words of the command line, so they are checked, and mistakes told, as if they stood there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

OPTION, AGENT = "--config", "agent"


def expanded(words: Sequence[str]) -> list[str]:
    """A command line with the options of its `--config FILE` in front of its own.

    Raises:
        ValueError: there is no file behind `--config`, or it holds no mapping from names to values, or has a name
            twice; or it is for another agent.
        FileNotFoundError: there is no such file.
    """
    words = [part for word in words for part in (word.split("=", 1) if word.startswith(f"{OPTION}=") else [word])]
    if OPTION not in words:
        return words
    place = words.index(OPTION)
    if place + 1 == len(words) or OPTION in words[place + 1 :]:
        raise ValueError(f"{OPTION} takes one YAML file")
    rest = words[:place] + words[place + 2 :]
    options = read(Path(words[place + 1]))
    first = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    named, own = rest[:first], rest[first:]
    agent = options.pop(AGENT, None)
    if agent is not None and named not in ([], [agent]):
        raise ValueError(f"the file {words[place + 1]!r} is for the agent {agent!r}, and {named[0]!r} is asked for")
    given = {option_of(word.partition("=")[0][2:]).removeprefix("no-") for word in own if word.startswith("--")}
    for name, value in options.items():
        if option_of(name) not in given:
            own = [*words_of(name, value), *own]
    return [*(named or [agent] if agent is not None else named), *own]


def read(path: Path) -> dict[str, Any]:
    """The options of a file.

    Raises:
        ValueError: it holds no mapping from names to values, or has a name twice.
        FileNotFoundError: there is no such file.
    """
    text = path.read_text(encoding="utf-8")
    try:
        node, options = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{str(path)!r} is not YAML that can be read: {error}") from error
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"{str(path)!r} must be a mapping from names of options to values")
    names = [option_of(key.value) for key, _ in node.value]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{str(path)!r} has {sorted(repeated)} more than once")
    return options


def option_of(name: str) -> str:
    """A name as the command line writes it."""
    return name.replace("_", "-")


def words_of(name: str, value: Any) -> list[str]:
    """An option as words of a command line."""
    option = option_of(name)
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{option}"]
    if isinstance(value, list | tuple):
        return [f"--{option}", *map(as_text, value)]
    return [f"--{option}={as_text(value)}"]


def as_text(value: Any) -> str:
    """A value of a YAML file as a command line writes it."""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def changed(given: Any, default: Any) -> list[str]:
    """The words of a command line that make the one dataclass of options, nested ones included, of the other."""
    words: list[str] = []
    for field in dataclasses.fields(given):
        value, other = getattr(given, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            words += changed(value, other)
        elif value != other:
            words += words_of(field.name, value)
    return words


def write(path: Path, options: dict[str, Any]) -> None:
    """Write options to a file that `expanded` reads."""
    path.write_text(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), encoding="utf-8")


def values_of(args: Any) -> dict[str, Any]:
    """The values of a dataclass of options and of its nested ones, by name.

    `resume` is left out: it says what to do with a folder.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if dataclasses.is_dataclass(value):
            values |= values_of(value)
        elif field.name != "resume":
            values[field.name] = plain(value)
    return values


def plain(value: Any) -> Any:
    """A value as YAML has it; a JSON object is a mapping."""
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return json.loads(value)
    return str(value) if isinstance(value, Path) else value
