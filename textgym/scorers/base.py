"""The scorer interface: a batch of generations in, one finite reward per row out.

An env calls its scorer once per step for all rows that ended in it (a token scorer: for all rows that moved), in the
parent process. `Generations` decodes lazily and once, so a scorer that reads only token ids costs no decoding.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from textgym.mdp import BoolArray, IntArray, TextMDP
from textgym.prompts import Messages, is_begun
from textgym.scorers.trainer import Trainer

if TYPE_CHECKING:
    from textgym.prompt_table import PromptTable
    from textgym.tokenizers import Tokenizer

FloatArray = NDArray[np.float64]
LARGEST = float(np.finfo(np.float32).max)


class ScorerError(ValueError):
    """A scorer failed, or returned something that is not one finite float per row."""


@dataclass
class Generations:
    """n rows to score.

    Attributes:
        mdp: the MDP's facts.
        tokenizer: the env's tokenizer.
        table: the env's prompts.
        observations: (n, P + T) int64, the rows after their newest token.
        prompt_ids: (n,) rows of the prompt table; the same id, the same prompt.
        rows: (n,) which row of the vector env each one is.
        lengths: (n,) completion tokens, EOS included.
        ended: (n,) whether the row ended with its newest token; all True unless the scorer pays per token.
        trainer: how far the training around the env is, and what is to be told it beside rewards.

    The other properties are made anew whenever they are read, so nobody else sees what is done to them.
    """

    mdp: TextMDP
    tokenizer: Tokenizer
    table: PromptTable
    observations: IntArray
    prompt_ids: IntArray
    rows: IntArray
    lengths: IntArray
    ended: BoolArray
    trainer: Trainer = field(default_factory=Trainer)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.observations)

    def select(self, mask: BoolArray | IntArray) -> Generations:
        """The rows where `mask` is True, or those it numbers."""
        return Generations(
            self.mdp,
            self.tokenizer,
            self.table,
            self.observations[mask],
            self.prompt_ids[mask],
            self.rows[mask],
            self.lengths[mask],
            self.ended[mask],
            self.trainer,
        )

    @property
    def completion_ids(self) -> list[list[int]]:
        """Token ids of each completion, EOS included, padding not."""
        return [ids.copy() for ids in self._completion_ids]

    @property
    def prompts(self) -> list[str]:
        """Prompts as the source gave them; a chat as its template renders it."""
        return self.table.texts(self.prompt_ids)

    @property
    def completions(self) -> list[str]:
        """What follows the prompt in each of `texts`; so a completion of words may begin with a space."""
        return list(self._parts[1])

    @property
    def texts(self) -> list[str]:
        """Prompt and completion, the whole row decoded at once, special tokens left out: what `env.decode` gives.

        Not always `prompts` and `completions` put together: a row holds no more than the last P tokens of a prompt,
        and what of it is special tokens, or is changed by the tokenizer, does not read as in the source.
        """
        return [prompt + completion for prompt, completion in zip(*self._parts, strict=True)]

    @property
    def chats(self) -> list[Messages]:
        """Prompts as message lists; a text prompt becomes one user message.

        A message of the assistant at the end is left out: the completion goes on with it, so `replies` has it.
        """
        contents = self.table.contents(self.prompt_ids)
        chats = [[{"role": "user", "content": c}] if isinstance(c, str) else c for c in contents]
        return [chat[:-1] if is_begun(chat) else chat for chat in chats]

    @property
    def replies(self) -> list[Messages]:
        """Completions as message lists, each of one message of the assistant's.

        Where the prompt ends with the beginning of that message, the completion is what follows it in the row's text.
        Otherwise the message is a text of its own, decoded as such.
        """
        contents: list[Any] = self.table.contents(self.prompt_ids)
        texts = [
            content[-1]["content"] + completion if is_begun(content) else self.tokenizer.decode(ids)
            for content, completion, ids in zip(contents, self.completions, self._completion_ids, strict=True)
        ]
        return [[{"role": "assistant", "content": text}] for text in texts]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The prompt source's columns, a list of n values per name."""
        return self.table.columns(self.prompt_ids)

    @cached_property
    def _completion_ids(self) -> list[list[int]]:
        completions = self.observations[:, self.mdp.max_prompt_tokens :].tolist()
        return [row[:length] for row, length in zip(completions, self.lengths.tolist(), strict=True)]

    @cached_property
    def _parts(self) -> tuple[list[str], list[str]]:
        """Prompts and completions as they read in the rows' texts, which they make up."""
        entries = self.table.find(self.prompt_ids)
        token_ids: list[Any] = [entry.token_ids for entry in entries]
        return self.tokenizer.decode_parts(token_ids, self._completion_ids, [entry.decoded for entry in entries])


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
    """

    name: str
    per_token: bool = False

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
            raise ScorerError(f"scorer {self.name!r} raised {type(error).__name__}: {error}") from error
        return check_values(self.name, raw, generations)


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
    if np.isnan(values.sum()):
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
