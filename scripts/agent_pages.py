"""The tables of arguments in `docs/agents`, from the constructors' signatures and docstrings.

A page says where a table belongs: what stands between `<!-- arguments: PPO -->` and `<!-- end of arguments -->` is
written anew. All else on the page is written by hand.
"""

from __future__ import annotations

import inspect
import json
import re

import agents
from agents.policy_gradient import PolicyGradient
from textgym.arguments import Argument, arguments_of, in_words
from textgym.language_models.token_model import TokenModel
from textgym.sb3 import EpisodicAlgorithm, TokenPolicy

OVERVIEW = (PolicyGradient, EpisodicAlgorithm)
"""Bases whose arguments stand in the overview, once, and not on the pages of their agents."""
AGENTS = [getattr(agents, name) for name in agents.__all__]
CLASSES = {cls.__name__: cls for cls in (*AGENTS, *OVERVIEW, TokenModel, TokenPolicy)}
NOT_LISTED = {"policy", "env", "mdp", "_init_setup_model"} | {
    *("observation_space", "action_space", "lr_schedule", "use_sde")
}
"""What every agent or policy is given, and what only stable-baselines3 gives."""


def with_tables(page: str) -> str:
    """A page with its tables written anew.

    Raises:
        KeyError: it names a class that has no table.
    """
    pattern = r"(<!-- arguments: (\w+) -->\n).*?(<!-- end of arguments -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{table(CLASSES[match[2]])}\n{match[3]}", page, flags=re.S)


def table(cls: type) -> str:
    """The Markdown table of a class's arguments, without those that stand in the overview."""
    rows = [row(argument) for argument in listed(cls)]
    return "\n".join(["| argument | default | accepted | meaning |", "|---|---|---|---|", *rows])


def listed(cls: type) -> list[Argument]:
    """The arguments that a page of this class explains: its own, and those of its bases that have no table."""
    elsewhere = [base for base in (*OVERVIEW, *TokenPolicy.__bases__) if base is not cls]
    declared_again = {"model"} if issubclass(cls, EpisodicAlgorithm) and cls is not EpisodicAlgorithm else set()
    left_out = NOT_LISTED | declared_again
    return [a for a in arguments_of(cls).values() if a.owner not in elsewhere and a.name not in left_out]


def row(argument: Argument) -> str:
    """One line of the table."""
    default = argument.default
    if default is inspect.Parameter.empty:
        written = ""
    elif inspect.isclass(default):
        written = f"`{default.__name__}`"
    else:
        written = f"`{json.dumps(default) if isinstance(default, (str, dict)) else repr(default)}`"
    accepted = re.sub(r"'([\w-]+)'", r'`"\1"`', in_words(argument.annotation)).replace("None", "`None`")
    cells = [f"`{argument.name}`", written, accepted, argument.help.removesuffix(".")]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
