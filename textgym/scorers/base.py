"""The scorer interface: a batch of generations in, one finite reward per row out.

An env calls its scorer once per step for all rows that ended in it (a token scorer: for all rows that moved), in the
parent process. `Generations` decodes lazily and once, so a scorer that reads only token ids costs no decoding.
"""

from __future__ import annotations

import math
import numbers
import os
import sysconfig
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textgym.mdp import BoolArray
from textgym.scorers.generations import Generations

FloatArray = NDArray[np.float64]
LARGEST = float(np.finfo(np.float32).max)


class ScorerError(ValueError):
    """A scorer failed, or returned something that is not one finite float per row."""


@dataclass
class Scores:
    """What an env pays and what it reports.

    Attributes:
        rewards: (n,) float64; NaN where nothing applies, which an env refuses.
        components: (n,) float64 per component name; they appear in `info` at the end of an episode. NaN where one does
            not apply to a row.
    """

    rewards: FloatArray
    components: dict[str, FloatArray]


class Scorer(ABC):
    """Maps generations to rewards. Subclass it and define `score`.

    Attributes:
        name: the component's name in `info` and in errors.
        per_token: True for a token scorer, which is asked after every token and pays for the newest one.
        slow: True if it mostly waits, as for a service. Agents then have it score in a thread of its own while other
            rows are still written; so it must not draw from the global random generators.
    """

    name: str
    per_token: bool = False
    slow: bool = False

    @abstractmethod
    def score(self, generations: Generations) -> Any:
        """One finite float per row: a list, a numpy array or a torch tensor on any device.

        In a list, None stands for a row to which the scorer does not apply; a weighted sum leaves it out.
        """

    def evaluate(self, generations: Generations) -> Scores:
        """`score`, checked. A scorer that does not pay per token gives 0 to rows that have not ended.

        Raises:
            ScorerError: `score` raised, or its values are not one finite float (or None) per row.
        """
        if self.per_token or np.count_nonzero(generations.ended) == len(generations):  # faster than all()
            values = self._checked(generations)
        else:
            values = np.zeros(len(generations))
            if generations.ended.any():
                values[generations.ended] = self._checked(generations.select(generations.ended))
        return Scores(values, {self.name: values})

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the components that `evaluate` reports."""
        return (self.name,)

    @property
    def objectives(self) -> dict[str, float]:
        """Component -> weight: the reward is the sum of these components, so weighted."""
        return {self.name: 1.0}

    def _checked(self, generations: Generations) -> FloatArray:
        try:
            raw = self.score(generations)
        except ScorerError:
            raise
        except Exception as error:
            said = f"scorer {self.name!r} raised {type(error).__name__}: {error}"
            raise ScorerError(said + own_place(error)) from error
        return check_values(self.name, raw, generations)


_FOLDERS = (str(Path(__file__).parents[1]), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
LIBRARIES = (*(os.path.join(folder, "") for folder in _FOLDERS), "<frozen")  # textgym_rewards.py is not ours


def own_place(error: Exception) -> str:
    """Where in a user's own code an error came from, such as `" (my_rewards.py, line 7)"`; empty where in none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(LIBRARIES)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Say in a ValueError from beneath, such as one of a loader, which scorer it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"scorer {name!r}: {error}") from error


def check_values(name: str, raw: Any, generations: Generations) -> FloatArray:
    """`raw` as (n,) float64, NaN for None, or a `ScorerError` that names the scorer, the row and its text."""
    try:
        array = raw if isinstance(raw, np.ndarray) else _as_array(raw)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor without data
        raise ScorerError(f"scorer {name!r} returned {raw!r}; it must return one float per row") from error
    if array.shape != (len(generations),):
        got = f"shape {array.shape}" if array.ndim else repr(raw)
        raise ScorerError(
            f"scorer {name!r} returned {got} for {len(generations)} rows; it must return one float per row"
        )
    if array.dtype.kind in "fiub":
        return check_finite(name, array.astype(np.float64), generations)
    values, applies = np.full(len(array), np.nan), np.ones(len(array), bool)
    given = raw if isinstance(raw, list | tuple) else array.tolist()  # numpy makes texts of all, where one is
    for row, value in enumerate(map(_as_scalar, given)):
        if value is None:
            applies[row] = False
        elif not isinstance(value, numbers.Real):
            problem = f"{value!r} ({type(value).__name__}), not a finite float"
            raise ScorerError(f"scorer {name!r} returned {problem}, {where(generations, row)}")
        else:
            values[row] = _as_float(value)
    return check_finite(name, values, generations, applies)


def check_finite(
    name: str, values: FloatArray, generations: Generations, applies: BoolArray | Literal[True] = True
) -> FloatArray:
    """(n,) rewards as they are, or a `ScorerError` for the first one that is not finite, also as a float32.

    Agents compute in float32, where a larger number would become infinite. Rows that do not apply are NaN.
    """
    if values.dot(values) <= LARGEST**2:  # then all of them fit: one call where looking at each takes three
        return values
    fits = (np.abs(values) <= LARGEST) | ~np.asarray(applies)  # False for nan
    if not fits.all():
        row = int(np.argmin(fits))
        problem = f"beyond float32's {LARGEST:.3g}" if np.isfinite(values[row]) else "not a finite float"
        raise ScorerError(f"scorer {name!r} returned {values[row]}, {problem}, {where(generations, row)}")
    return values


def refuse_unscored(name: str, values: FloatArray, generations: Generations) -> None:
    """Refuse rewards, (n,), where nothing applies to a row, with a `ScorerError` that names it."""
    if math.isnan(values.dot(values)):  # faster than looking at each
        row = int(np.argmax(np.isnan(values)))
        raise ScorerError(f"scorer {name!r} has no reward, because no part of it applies, {where(generations, row)}")


def _as_array(raw: Any) -> NDArray[Any]:
    try:
        return np.asarray(_as_numpy(raw))
    except (TypeError, ValueError, RuntimeError):  # tensors with a gradient, of bfloat16, or on a GPU
        return np.asarray([_as_numpy(value) for value in raw])


def _as_numpy(value: Any) -> Any:
    """A torch tensor, on whatever device, as float64, because numpy knows no bfloat16; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.numpy() if tensor.is_complex() else tensor.double().numpy()


def _as_scalar(value: Any) -> Any:
    """The number in an array or tensor of no dimension, which stands beside something else; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _as_float(value: Any) -> float:
    """A Python number; infinite if it is an integer or a fraction beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def where(generations: Generations, row: int) -> str:
    """Which row an error is about, and its text."""
    return f"for row {generations.rows[row]}: {generations.prompts[row]!r} -> {generations.completions[row]!r}"
