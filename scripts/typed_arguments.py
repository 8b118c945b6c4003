"""Arguments of agents and trainers as options of a command line, read off their signatures and docstrings."""

from __future__ import annotations

import json
import math
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
        kind = kind if default is not None else kind | None
        told = (help_of(argument), SCHEDULE) if is_schedule(argument) else (help_of(argument),)
        options.append((name, Annotated[kind, *told], default))
    return options


def read_values(arguments: dict[str, Argument], options: Any) -> dict[str, Any]:
    """The arguments' values, which `options` has as attributes, JSON and schedules being made of their texts.

    Raises:
        ValueError: an argument that is written as JSON is none.
    """
    values = {name: getattr(options, name) for name in arguments}
    for name, value in values.items():
        if isinstance(value, str) and is_json(arguments[name]):
            values[name] = parse_json(name, value)
        elif isinstance(value, str) and is_schedule(arguments[name]):
            start, end = map(float, value.split(":"))
            values[name] = LinearSchedule(start, end, end_fraction=1.0)
    return values


def typed(annotation: Any) -> Any:
    """The part of an annotation that can be typed, with its ranges; None where there is none.

    Of functions, those of the remaining progress can, as text (`number_or_schedule`).
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


def number_or_schedule(words: list[str]) -> float | str | None:
    """A number, or the text of two between which a schedule goes linearly, such as `0.4:0.04`; it stays text for files.

    Raises:
        ValueError: it is neither.
    """
    (text,) = words
    if text == "None":
        return None
    try:
        ends = [float(end) for end in text.split(":")]
    except ValueError:
        ends = []
    if len(ends) == 1:
        return ends[0]
    if len(ends) != 2 or not all(0 <= end < math.inf for end in ends):
        raise ValueError(f"{text!r} is neither a number nor two of at least 0, such as 0.4:0.04")
    return text


SCHEDULE = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="FLOAT|FLOAT:FLOAT",
    instance_from_str=number_or_schedule,
    is_instance=lambda value: value is None or isinstance(value, float | int | str),
    str_from_instance=lambda value: [str(value)],
)
"""How tyro reads an argument that may be a function of the remaining progress."""
