"""What a class accepts: name, type, range, default and meaning of every argument, written once, where it is declared.

    class Agent(CheckedArguments):
        '''...

Args:
            gamma: discount per token.
        '''

        def __init__(self, *, gamma: Probability = 1.0, **kwargs: Any): ...

The annotation says which values are accepted, and a call with another one is refused by the argument's name. Command
lines, checkpoints and the tables of the docs read the same declarations (`arguments_of`), so none of them repeats one.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from textgym.importing import did_you_mean


class Condition(ABC):
    """What a value must satisfy beside its type: metadata of an `Annotated`."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a value of the annotated type satisfies it."""

    @abstractmethod
    def in_words(self) -> str:
        """What is accepted, as it follows "it must be", or the name of the type where that has one."""


@dataclass(frozen=True)
class Range(Condition):
    """The numbers from `least` to `most`, both included unless `above`, which leaves `least` itself out.

    Infinity is among them only where `finite` is False.
    """

    least: float
    most: float = math.inf
    above: bool = False
    finite: bool = True

    def holds(self, value: float) -> bool:
        """Whether it is in the range."""
        if self.finite and abs(value) == math.inf:
            return False
        return (self.least < value if self.above else self.least <= value) and value <= self.most

    def in_words(self) -> str:
        """Such as "positive", "at least 1", "in [0, 1]" or "a finite number"."""
        if math.isinf(self.least):
            return "a finite number"
        if math.isinf(self.most):
            return (
                "positive"
                if self.above and not self.least
                else f"{'above' if self.above else 'at least'} {self.least:g}"
            )
        return f"in {'(' if self.above else '['}{self.least:g}, {self.most:.10g}]"


class Written(Enum):
    """How a command line writes an argument that may be any object in Python."""

    NAME = "a name"
    JSON = "JSON"


Count = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, above=True)]
PositiveOrInfinite = Annotated[float, Range(0, above=True, finite=False)]
Finite = Annotated[float, Range(-math.inf)]
NonNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, above=True)]
Named = Annotated[Any, Written.NAME]
"""An object, or its name: a model, say."""
AsJSON = Annotated[Any, Written.JSON]
"""An object, or its JSON."""


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor; `default` is `inspect.Parameter.empty` where it must be given."""

    name: str
    annotation: Any
    default: Any
    help: str
    owner: type
    """The class that declares it."""


@cache
def arguments_of(cls: type) -> dict[str, Argument]:
    """All arguments of a class by name: its own, and those that a `**kwargs` hands on along the MRO.

    Where a subclass declares an argument again, its annotation and default count; where it describes one again, its
    description does. What a class names in `withheld`, which is inherited, it does not take from its bases.
    """
    found: dict[str, Argument] = {}
    described: dict[str, str] = {}
    for owner in cls.__mro__:
        described = descriptions(owner) | described
        constructor = vars(owner).get("__init__")
        if constructor is None:
            continue
        hints = get_type_hints(constructor, include_extras=True)
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        for p in parameters:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            known = found.get(p.name) or Argument(p.name, hints.get(p.name, Any), p.default, "", owner)
            found[p.name] = replace(known, help=described.get(p.name, ""))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    withheld = getattr(cls, "withheld", ())
    return {name: argument for name, argument in found.items() if name not in withheld}


def descriptions(cls: type) -> dict[str, str]:
    """What the "Args:" section of a class's own docstring says of each argument, on one line."""
    text = inspect.cleandoc(vars(cls).get("__doc__") or "")
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)*)", text, re.M)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(words.split()) for name, words in entries}


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value has an annotated type. NaN is not a number here, and neither is a bool."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin is Annotated:
        conditions = (part for part in parts[1:] if isinstance(part, Condition))
        return accepts(parts[0], value) and all(condition.holds(value) for condition in conditions)
    if origin in (Union, UnionType):
        return any(accepts(part, value) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if annotation is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and _is_float(value)
    if origin is Callable:
        return callable(value)
    return isinstance(value, origin or annotation)


def _is_float(value: numbers.Real) -> bool:
    """Whether a number is a float; NaN is none, and neither is an integer beyond all of them."""
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def plain_numbers(value: Any) -> Any:
    """Numbers of other types (numpy's, fractions), also in dicts and lists, as Python's; other values as they are."""
    if type(value) is dict:
        return {name: plain_numbers(one) for name, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_numbers, value))
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def in_words(annotation: Any) -> str:
    """Which values an annotation accepts, such as "an integer of at least 1, or None"."""
    words = list(dict.fromkeys(_alternatives(annotation)))
    return ", or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _alternatives(annotation: Any) -> list[str]:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return [words for part in parts for words in _alternatives(part)]
    if origin is Literal:
        return [repr(part) for part in parts]
    if origin is Annotated:
        if Written.NAME in parts:
            return ["a name", "an object"]
        conditions = [part.in_words() for part in parts[1:] if isinstance(part, Condition)]
        if parts[0] is int and conditions:
            return [f"an integer {' and '.join(conditions)}".replace("integer at", "integer of at")]
        return conditions or _alternatives(parts[0])
    if annotation is NoneType:
        return ["None"]
    return [_NOUNS.get(origin or annotation) or f"a {(origin or annotation).__name__}"]


_NOUNS = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Callable: "a function",
    type: "a class",
    Any: "an object",
}


def check_argument(name: str, value: Any, annotation: Any) -> None:
    """Refuse a value that its annotation does not accept.

    Raises:
        ValueError: it names the argument, the value, and what is accepted.
    """
    if accepts(annotation, value):
        return
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if all(part is NoneType or get_origin(part) is Literal for part in parts):
        choices = [choice for part in parts for choice in get_args(part) or (None,)]
        raise ValueError(f"{name} is {value!r}; accepted are {choices}")
    words = in_words(annotation)
    finite = "finite and " if isinstance(value, float) and math.isinf(value) and "finite" not in words else ""
    raise ValueError(f"{name} is {value!r}; it must be {finite}{words}")


class CheckedCalls(ABCMeta):
    """The metaclass of `CheckedArguments`: it sees the call of the outermost class; copies call none."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check, and make the object from plain numbers, which JSON and every library understand."""
        cls.check_call(*args, **kwargs)
        return super().__call__(*map(plain_numbers, args), **plain_numbers(kwargs))

    def check_call(cls, *args: Any, **kwargs: Any) -> None:
        """Refuse what a call of the class would refuse of its arguments, and make nothing."""
        known = arguments_of(cls)
        for name, value in (dict(zip(known, args, strict=False)) | kwargs).items():
            if name not in known:
                raise TypeError(f"{cls.__name__} has no argument {name!r}{did_you_mean(name, known)}")
            check_argument(name, value, known[name].annotation)


class CheckedArguments(metaclass=CheckedCalls):
    """A class whose constructor's annotations are checked, its bases' included, before anything is made.

    Raises:
        TypeError: there is no such argument.
        ValueError: an argument has a value that its annotation does not accept.
    """
