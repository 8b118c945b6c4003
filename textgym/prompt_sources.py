"""Prompt sources that have a name and take arguments: prompts that the package brings, or makes from a seed.

A new source is a function that returns rows of prompts, and a row of `PROMPT_SOURCES`. Its annotations say which values
its arguments accept. The argument that it cannot do without, if there is one, may stand behind a colon: `"name:value"`.
An argument that is a `PromptLimit` is not the user's to give: the env does.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Any, get_type_hints

from textgym.arguments import check_argument, plain_numbers
from textgym.importing import did_you_mean

if TYPE_CHECKING:
    from textgym.tokenizers import Tokenizer

PROMPT_SOURCES = {
    "arithmetic": "textgym.tasks.arithmetic:prompts",
    "countdown": "textgym.tasks.countdown:prompts",
    "dialogue": "textgym.tasks.dialogue:prompts",
    "few_shot": "textgym.few_shot:prompts",
    "functions": "textgym.tasks.functions:prompts",
    "guess": "textgym.tasks.guess:prompts",
    "numerals": "textgym.tasks.numerals:prompts",
    "openenv": "textgym.bridges.openenv_tasks:prompts",
    "reasoning_gym": "textgym.reasoning:prompts",
    "reviews": "textgym.tasks.reviews:prompts",
    "summary": "textgym.tasks.summary:prompts",
}
"""Name -> function, as an import string, so that naming a source imports no other one."""


@dataclass(frozen=True)
class PromptLimit:
    """What an env takes as a prompt.

    Attributes:
        tokenizer: the env's.
        max_prompt_tokens: P.
        truncate: whether it keeps the last P tokens of a longer prompt, and does not refuse it.
    """

    tokenizer: Tokenizer
    max_prompt_tokens: int
    truncate: bool

    def tokens(self, content: Any) -> int:
        """How many tokens a text or chat has."""
        text = content if isinstance(content, str) else self.tokenizer.apply_chat_template(content)
        return len(self.tokenizer.encode(text))

    def exceeded_by(self, content: Any) -> bool:
        """Whether a text or chat has more than P tokens."""
        return self.tokens(content) > self.max_prompt_tokens


def is_named(source: Any) -> bool:
    """Whether a prompt source is one of `PROMPT_SOURCES` by name, or a dict that has a name at all."""
    if isinstance(source, Mapping):
        return "name" in source
    return isinstance(source, str) and source.partition(":")[0] in PROMPT_SOURCES


def with_arguments(source: Any, **arguments: Any) -> Any:
    """A prompt source with further arguments; those that are None are left out.

    Raises:
        ValueError: the source is none that has a name, or has such an argument already.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if not given:
        return source
    name, value = next(iter(given.items()))
    if not is_named(source):
        raise ValueError(
            f"{name} is {value!r}, but these prompts have no {name}: only those of a prompt source with a name do, one "
            f"of {sorted(PROMPT_SOURCES)}"
        )
    spec = as_spec(source)
    if twice := sorted(set(spec) & set(given)):
        raise ValueError(f"{twice[0]} is given twice, as an argument of the env and in prompts={source!r}")
    return spec | given


def as_spec(source: Any) -> dict[str, Any]:
    """A prompt source that has a name as a dict of the name and the arguments."""
    return dict(source) if isinstance(source, Mapping) else {"name": source}


def function_of(source: Any) -> tuple[Callable[..., Any], Mapping[str, Parameter]]:
    """The function behind a prompt source that has a name, and its parameters.

    Raises:
        ValueError: there is no such source.
    """
    full = as_spec(source)["name"]
    name = full.partition(":")[0] if isinstance(full, str) else full
    if name not in PROMPT_SOURCES:
        hint = did_you_mean(name, PROMPT_SOURCES) if isinstance(name, str) else ""
        raise ValueError(f"unknown prompt source {full!r}{hint or ';'} those with a name are {sorted(PROMPT_SOURCES)}")
    module, _, attribute = PROMPT_SOURCES[name].partition(":")
    function = getattr(importlib.import_module(module), attribute)
    return function, inspect.signature(function).parameters


def named_rows(source: Any, limit: PromptLimit | None = None) -> Any:
    """The rows of a prompt source by name: `"reviews"`, `"name:value"` or `{"name": "reviews", "split": "test"}`.

    Args:
        source: as above.
        limit: what the env takes; None where there is no env.

    Raises:
        ValueError: there is no such source, or it does not take what it is given.
    """
    function, every = function_of(source)
    kwargs = as_spec(source)
    full = kwargs.pop("name")
    name, colon, value = full.partition(":")
    hints = get_type_hints(function, include_extras=True)
    of_the_env = [p for p in every if hints.get(p) == PromptLimit | None]
    parameters = {p: q for p, q in every.items() if q.kind is not q.VAR_KEYWORD and p not in of_the_env}
    needed = [p for p, parameter in parameters.items() if parameter.default is parameter.empty]
    if colon:
        if not needed or needed[0] in kwargs:
            why = f"takes {needed[0]!r} once" if needed else f"takes nothing behind a colon, but {list(parameters)}"
            raise ValueError(f"prompt source {full!r}: {name!r} {why}")
        kwargs[needed[0]] = value
    others = any(parameter.kind is parameter.VAR_KEYWORD for parameter in every.values())
    for argument, given in kwargs.items():
        if argument not in parameters and not others:
            hint = did_you_mean(str(argument), parameters) or ";"
            raise ValueError(
                f"prompt source {name!r} takes no argument {argument!r}{hint} accepted are {list(parameters)}"
            )
        kwargs[argument] = plain_numbers(given)
        check_argument(f"prompt source {name!r}: {argument}", kwargs[argument], hints.get(argument, Any))
    if missing := [p for p in needed if p not in kwargs]:
        raise ValueError(f"prompt source {name!r} needs {missing[0]!r}: write {name + ':...'!r}, or a dict that has it")
    return function(**kwargs, **dict.fromkeys(of_the_env, limit))
