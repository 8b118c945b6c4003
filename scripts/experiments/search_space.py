"""Which values of an agent's arguments a search tries: by default those around its own, within the annotated range."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from scripts.agent_arguments import COMMANDS
from scripts.typed_arguments import typed
from textgym.arguments import Argument, Range, accepts, arguments_of, check_argument
from textgym.importing import did_you_mean

WORDS = {"True": True, "False": False, "None": None}
TIMES = 10
"""A range that nobody gives reaches from a tenth of the default to ten times as much, on a logarithmic scale."""


@dataclass(frozen=True)
class Dimension:
    """An argument that is searched over: `choices`, or the numbers from `low` to `high`.

    Attributes:
        default: the agent's own value, which is tried first; None where it is not among these.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    default: Any = None

    def suggest(self, trial: Any) -> str:
        """What an `optuna.Trial` takes, as a command line writes it: numbers to three digits."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if isinstance(self.low, int):
            return str(trial.suggest_int(self.name, self.low, self.high, log=self.low > 0))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=self.low > 0):.3g}"


def dimension(agent: str, text: str) -> Dimension:
    """The dimension that `name`, `name=low..high` or `name=a|b|c` stands for.

    Raises:
        ValueError: an unknown argument, values that it does not accept, or none where it needs some.
    """
    name, given, values = text.partition("=")
    known = arguments_of(COMMANDS[agent].algorithm)
    if name not in known:
        raise ValueError(f"{agent} has no argument {name!r}{did_you_mean(name, known)}")
    argument = known[name]
    if not given:
        return around_default(argument)
    ends = values.split("..")
    if len(ends) == 2:
        low, high = (_value(argument, end) for end in ends)
        if type(low) is not type(high) or not isinstance(low, int | float) or not low < high:
            raise ValueError(f"{text!r} is no range: the lower end of two numbers comes first")
        return _with_default(Dimension(name, low=low, high=high), argument)
    return _with_default(
        Dimension(name, choices=tuple(_value(argument, value) for value in values.split("|"))), argument
    )


def around_default(argument: Argument) -> Dimension:
    """The choices of an argument, or the numbers around its default.

    Raises:
        ValueError: it has neither.
    """
    kinds, default = _kinds(argument.annotation), argument.default
    choices = tuple(value for kind, _ in kinds if get_origin(kind) is Literal for value in get_args(kind))
    if choices or default is True or default is False:
        return Dimension(argument.name, choices=choices or (False, True), default=default)
    ranges = [limits for _, limits in kinds if limits is not None]
    if ranges and (ranges[0].least, ranges[0].most) == (0, 1):
        return Dimension(argument.name, low=0.0, high=1.0, default=default)
    if not isinstance(default, int | float) or not default > 0 or not ranges:
        raise ValueError(
            f"{argument.name} is {default!r} by default, which says nothing of its range; give one, as "
            f"{argument.name}=low..high or {argument.name}=a|b|c"
        )
    low, high = max(ranges[0].least, default / TIMES), min(ranges[0].most, default * TIMES)
    kind = int if isinstance(default, int) else float
    return Dimension(argument.name, low=kind(low), high=kind(high), default=default)


def _kinds(annotation: Any) -> list[tuple[Any, Range | None]]:
    """The alternatives of an annotation that can be typed, None apart, each with its range."""
    kind = typed(annotation)
    if get_origin(kind) is Annotated:
        limits = [part for part in get_args(kind)[1:] if isinstance(part, Range)]
        return [(get_args(kind)[0], limits[0] if limits else None)]
    if get_origin(kind) in (Union, UnionType):
        return [found for part in get_args(kind) for found in _kinds(part)]
    return [] if kind in (None, NoneType) else [(kind, None)]


def _value(argument: Argument, text: str) -> Any:
    """The value that a text stands for.

    Raises:
        ValueError: the argument does not accept it.
    """
    values: list[Any] = [WORDS[text]] if text in WORDS else []
    for kind in (int, float, str):
        with suppress(ValueError):
            values.append(kind(text))
    accepted = [value for value in values if accepts(argument.annotation, value)]
    if not accepted:
        check_argument(argument.name, values[0], argument.annotation)
    return (
        float(accepted[0]) if isinstance(argument.default, float) and not isinstance(accepted[0], str) else accepted[0]
    )


def _with_default(found: Dimension, argument: Argument) -> Dimension:
    default = argument.default
    inside = default in found.choices if found.choices else default is not None and found.low <= default <= found.high
    return Dimension(found.name, found.choices, found.low, found.high, default if inside else None)
