"""Arguments of agents and trainers as options of a command line, read off their signatures and docstrings."""

from __future__ import annotations

import json
import operator
from functools import reduce
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

from scripts.command_line import parse_json
from textgym.arguments import Argument, Condition, Written


def options_of(arguments: dict[str, Argument], **defaults: Any) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of the options for some arguments, as `dataclasses.make_dataclass` takes them.

    Args:
        arguments: those that a command line can give, by name.
        defaults: what replaces their own defaults.
    """
    options: list[tuple[str, Any, Any]] = []
    for name, argument in arguments.items():
        kind, default = typed(argument.annotation), defaults.get(name, argument.default)
        if is_json(argument) and default is not None:
            default = json.dumps(default)
        options.append((name, Annotated[kind if default is not None else kind | None, help_of(argument)], default))
    return options


def values_of(arguments: dict[str, Argument], options: Any) -> dict[str, Any]:
    """The arguments' values, which `options` has as attributes, with JSON and schedules read.

    Raises:
        ValueError: a text is none.
    """
    values = {name: getattr(options, name) for name in arguments}
    for name, value in values.items():
        if isinstance(value, str) and is_json(arguments[name]):
            values[name] = parse_json(name, value)
        elif isinstance(value, str) and is_schedule(arguments[name]):
            values[name] = schedule(name, value)
    return values


def typed(annotation: Any) -> Any:
    """The part of an annotation that can be typed, with its ranges; None where there is none.

    Of functions, those of the remaining progress can, as text (`schedule`).
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation == Schedule:
        return str
    if origin is Annotated:
        kind, conditions = typed(parts[0]), [part for part in parts[1:] if isinstance(part, Condition)]
        if any(isinstance(part, Written) for part in parts):
            return str
        return Annotated[kind, *conditions] if conditions else kind
    if origin in (Union, UnionType):
        kinds = [kind for part in parts if (kind := typed(part)) is not None]
        return reduce(operator.or_, kinds) if kinds else None
    return annotation if origin is Literal or annotation in (bool, int, float, str, NoneType) else None


def help_of(argument: Argument) -> Any:
    """What `--help` says of an argument."""
    text = argument.help[:1].upper() + argument.help[1:]
    if is_schedule(argument):
        text = f"{text.rstrip('.')}. 0.4:0.04 goes linearly from one to the other"
    return tyro.conf.arg(help=text)


def is_json(argument: Argument) -> bool:
    """Whether an argument is written as JSON."""
    return Written.JSON in get_args(argument.annotation)


def is_schedule(argument: Argument) -> bool:
    """Whether an argument may be a function of the remaining progress."""
    return Schedule in get_args(argument.annotation)


def schedule(name: str, text: str) -> LinearSchedule:
    """What a text such as `0.4:0.04` stands for.

    Raises:
        ValueError: it is another text.
    """
    try:
        start, end = map(float, text.split(":"))
    except ValueError as error:
        must = "it must be a number, or two such as 0.4:0.04, between which it goes linearly"
        raise ValueError(f"--{name.replace('_', '-')} is {text!r}; {must}") from error
    return LinearSchedule(start, end, end_fraction=1.0)
