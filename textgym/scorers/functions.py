"""Plain Python functions as scorers, called exactly as TRL's trainers call reward functions.

`function(prompts=[...], completions=[...], completion_ids=[...], **columns)`: everything by keyword, each a list of one
entry per row; and what TRL passes of its trainer, `trainer_state`, `log_metric` and `log_extra` (see
`textgym.scorers.trainer`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from textgym.arguments import check_argument
from textgym.importing import did_you_mean, import_string
from textgym.scorers.base import Generations, Scorer, ScorerError
from textgym.scorers.event_loop import wait
from textgym.scorers.registry import name_problem

GIVEN = ("prompts", "completions", "completion_ids")
OF_TRAINER = {"trainer_state": "state", "log_metric": "log_metric", "log_extra": "log_extra"}
"""Parameters, and which attributes of the `Trainer` they get."""


class FunctionScorer(Scorer):
    """The value of a Python function, called as TRL's trainers call reward functions.

    Args:
        function: takes any of `prompts`, `completions` (texts), `completion_ids` (lists of token ids, EOS included) and
            the names of the prompt source's columns, or `**kwargs` for all of them; returns one finite float per row as
            a list, numpy array or torch tensor. In a list, None says that the function does not apply to a row: a
            weighted sum leaves it out there, and a row to which nothing applies is an error. It also gets, if it asks,
            `trainer_state` (how far the training was when the rollout began; None where there is no training),
            `log_metric(name, number)` and `log_extra(column, values)` (see `textgym.scorers.trainer`). It may be
            `async`; all such functions of a process run in one event loop (`textgym.scorers.event_loop`). An import
            string `"module:attribute"` names one too.
        name: the component's name in `info`; by default the function's, without underscores before it. Where no
            component can have that name (`registry.RESERVED`), `"_function"` is appended: what the function `reward`
            gives is called `"reward_function"`, because `"reward"` is the env's.
        conversational: pass prompts as message lists and completions as `[{"role": "assistant", "content": text}]`,
            which is how TRL calls functions on chat datasets. A message of the assistant's that the prompt begins is
            part of the completion then.
        slow: the function mostly waits, as for a service: agents have it called in a thread of its own while other rows
            are still written. It must not draw from the global random generators then.

    Range: the function's.

    Cost: that of the function, which is called once per batch.

    Source: the reward functions of TRL's `GRPOTrainer`.

    Example: `{"name": "function", "function": "my_rewards:brevity", "component_name": "short"}`

    Raises:
        ValueError: `function` is not callable, or its signature fits nothing that it will be given.
    """

    def __init__(
        self,
        function: Callable[..., Any] | str,
        *,
        name: str | None = None,
        conversational: bool = False,
        slow: bool = False,
    ):
        found = import_string(function, what="scorer function") if isinstance(function, str) else function
        if not callable(found):
            raise ValueError(f"a scorer function must be callable, not {found!r}")
        self.function: Callable[..., Any] = found
        self.name = _default_name(found) if name is None else name
        check_argument(f"scorer {self.name!r}: conversational", conversational, bool)
        check_argument(f"scorer {self.name!r}: slow", slow, bool)
        self.conversational, self.slow = conversational, slow
        parameters = _parameters(self.name, found)
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._accepted = {p.name for p in named}
        self._required = [p.name for p in named if p.default is p.empty]
        if not self._takes_all and not self._accepted & set(GIVEN):
            raise ValueError(
                f"scorer {self.name!r} takes {sorted(self._accepted)}, but none of {list(GIVEN)}; it is called by "
                f"keyword, as {self.name}(prompts=..., completions=..., completion_ids=..., **columns)"
            )

    def score(self, generations: Generations) -> Any:
        """Call the function.

        Raises:
            ScorerError: the function requires a parameter that is no column of the prompts.
        """
        columns = generations.columns
        known = [*GIVEN, *columns]
        if missing := [p for p in self._required if p not in known and p not in OF_TRAINER]:
            raise ScorerError(
                f"scorer {self.name!r} requires the argument {missing[0]!r}, which is none of {list(GIVEN)} and no "
                f"column of the prompts (columns: {list(columns)}){did_you_mean(missing[0], known)}"
            )
        arguments = {name: value for name, value in columns.items() if self._wants(name)}
        for name in filter(self._wants, GIVEN):  # what nobody reads is not decoded
            arguments[name] = self._given(name, generations)
        for name in filter(self._wants, OF_TRAINER):
            arguments[name] = getattr(generations.trainer, OF_TRAINER[name])
        result = self.function(**arguments)
        return wait(result) if inspect.isawaitable(result) else result

    def _wants(self, name: str) -> bool:
        return self._takes_all or name in self._accepted

    def _given(self, name: str, generations: Generations) -> list[Any]:
        if self.conversational and name == "prompts":
            return generations.chats
        if self.conversational and name == "completions":
            return generations.replies
        return getattr(generations, name)


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function; of what a `functools.partial` wraps; of a callable object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _default_name(function: Callable[..., Any]) -> str:
    name = function_name(function).lstrip("_")
    return f"{name}_function".lstrip("_") if name_problem(name) else name


def _parameters(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The function's parameters; `**kwargs` alone where Python cannot tell."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some functions written in C
        return [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]
    for p in parameters:
        if p.kind is p.POSITIONAL_ONLY and p.default is p.empty:
            raise ValueError(f"scorer {name!r} has the positional-only parameter {p.name!r}, but is called by keyword")
    return parameters
