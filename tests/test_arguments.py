"""What annotations accept, how it is said, what is found along an MRO, and how a call is checked."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from textgym.arguments import (
    AsJSON,
    CheckedArguments,
    Count,
    Finite,
    Named,
    NonNegative,
    Positive,
    PositiveOrInfinite,
    PositiveShare,
    Probability,
    Range,
    Seed,
    accepts,
    arguments_of,
    check_argument,
    in_words,
    plain_numbers,
)

Function = Callable[[float], float]
NUMBERS = [math.nan, math.inf, -math.inf, True, False, "1", None, [1], np.bool_(True)]


@pytest.mark.parametrize(
    ("annotation", "right", "wrong", "words"),
    [
        (Count, [1, 2, np.int64(3), 10**30, 10**400], [0, -1, 1.0, 2.5, *NUMBERS], "an integer of at least 1"),
        (Seed, [0, 2**32 - 1], [-1, 2**32, *NUMBERS], "an integer in [0, 4294967295]"),
        (Positive, [1, 1e-300, np.float32(2)], [0, 0.0, -1, 10**400, *NUMBERS], "positive"),
        (NonNegative, [0, 0.0, 1e300], [-1e-300, *NUMBERS], "at least 0"),
        (Probability, [0, 1, 0.5], [-1e-9, 1.0000001, *NUMBERS], "in [0, 1]"),
        (PositiveShare, [1, 1e-9], [0, 1.1, *NUMBERS], "in (0, 1]"),
        (PositiveOrInfinite, [1, math.inf], [0, -1, -math.inf, math.nan, True], "positive"),
        (Annotated[float, Range(2, above=True)], [2.5], [2, *NUMBERS], "above 2"),
        (Finite, [-1e300, 0, 2.5, Fraction(1, 2)], [10**400, -(10**400), *NUMBERS], "a finite number"),
        (Count | None, [None, 1], [0, math.nan], "an integer of at least 1, or None"),
        (Positive | Function | None, [None, 1, abs, lambda x: x], [0, "1"], "positive, a function, or None"),
        (Literal["a", "b"] | None, ["a", None], ["c", 0, ["a"]], "'a', 'b', or None"),
        (Literal[0, 1], [0, 1], [True, 2, 1.0], "0, or 1"),
        (bool, [True, False], [0, 1, "no", None], "True or False"),
        (int, [-5], [1.0, True], "an integer"),
        (str | dict[str, Any], ["x", {}], [1, None], "a text, or a dict"),
        (dict | Mapping[str, int], [{}], [1], "a dict, or a Mapping"),
        (type[int] | str, [int, str, "x"], [3], "a class, or a text"),
        (Named, [None, "tiny", object()], [], "a name, or an object"),
        (AsJSON, [{}, 3], [], "an object"),
    ],
)
def test_what_an_annotation_accepts_and_how_it_is_said(annotation, right, wrong, words):
    assert [value for value in right if not accepts(annotation, value)] == []
    assert [value for value in wrong if accepts(annotation, value)] == []
    assert in_words(annotation) == words


def test_a_message_names_argument_value_and_what_is_accepted():
    with pytest.raises(ValueError, match=r"^max_grad_norm is -1; it must be positive$"):
        check_argument("max_grad_norm", -1, Positive)
    with pytest.raises(ValueError, match=r"^gamma is nan; it must be in \[0, 1\]$"):
        check_argument("gamma", math.nan, Probability)
    with pytest.raises(ValueError, match=r"^kl_coef is inf; it must be finite and at least 0$"):
        check_argument("kl_coef", math.inf, NonNegative)
    with pytest.raises(ValueError, match=r"^kind is 'z'; accepted are \['x', 'y', None\]$"):
        check_argument("kind", "z", Literal["x", "y"] | None)


class Base(CheckedArguments):
    """The end of the chain.

    Text before.

    Args:
        place: where
            it is.
        size: how much:
            in metres.
        hidden: of the base.

    Raises:
        ValueError: size: is no argument.
    """

    def __init__(self, place: str, *, size: Positive = 1.0, hidden: int = 0):
        self.place, self.size, self.hidden = place, size, hidden


class Middle(Base):
    """Has no constructor."""


class Top(Middle):
    """Declares one again.

    Args:
        share: a part.
        **kwargs: see `Base`.
    """

    def __init__(self, place: str, *, share: Probability = 0.5, size: Positive = 3.0, **kwargs: Any):
        self.share = share
        super().__init__(place, size=size, **kwargs)


class Closed(Top):
    """Hands nothing on."""

    def __init__(self, place: str = "here"):
        super().__init__(place)


def test_arguments_are_found_along_the_mro_as_far_as_kwargs_go():
    found = arguments_of(Top)
    assert list(found) == ["place", "share", "size", "hidden"]  # its own first
    assert [a.default for a in found.values()] == [inspect.Parameter.empty, 0.5, 3.0, 0]
    assert [a.help for a in found.values()] == ["where it is.", "a part.", "how much: in metres.", "of the base."]
    assert [a.owner for a in found.values()] == [Top, Top, Top, Base]
    assert found["share"].annotation == Probability
    assert list(arguments_of(Middle)) == list(arguments_of(Base)) == ["place", "size", "hidden"]
    assert list(arguments_of(Closed)) == ["place"]


def test_a_call_is_checked_before_anything_is_made_wherever_the_argument_is_declared():
    made = Top("x", share=1, hidden=3)
    assert (made.place, made.share, made.size, made.hidden) == ("x", 1, 3.0, 3)
    for wrong, message in (
        ({"share": 2}, "share is 2; it must be in"),
        ({"size": 0}, "size is 0; it must be positive"),
        ({"hidden": "3"}, "hidden is '3'; it must be an integer"),
        ({"place": 4}, "place is 4; it must be a text"),
    ):
        with pytest.raises(ValueError, match=message):
            Top(**{"place": "x"} | wrong)
    with pytest.raises(ValueError, match="place is 4"):
        Top(4)
    with pytest.raises(TypeError, match="^Top has no argument 'sizes'; did you mean 'size'"):
        Top("x", sizes=3)
    with pytest.raises(TypeError, match="place"):
        Top()


def test_numbers_of_other_types_become_pythons_own():
    made = Top("here", share=np.float32(0.5), size=Fraction(3, 2), hidden=np.int64(2))
    assert [(type(v), v) for v in (made.share, made.size, made.hidden)] == [(float, 0.5), (float, 1.5), (int, 2)]
    given = {"a": np.float32(0.25), "b": {"c": np.int8(-1)}, "d": True, "e": np.arange(2), "f": (np.int64(3),)}
    made = plain_numbers(given)
    assert type(made["a"]) is float and type(made["b"]["c"]) is int and made["d"] is True
    assert all(made[name] is given[name] for name in "de") and type(made["f"][0]) is int
    assert type(given["a"]) is np.float32


def test_copies_and_pickles_are_made_without_a_call():
    made = Top("x", size=2.0)
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert vars(again) == vars(made)
