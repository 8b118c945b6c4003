"""The page `docs/scorers.md`, from the docstrings and signatures of the scorers.

A family is a file of `textgym/scorers`. It has a heading, below which the first paragraph of its docstring stands.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from typing import Any, get_type_hints

from scripts.agent_pages import row
from textgym.arguments import Argument, descriptions
from textgym.scorers import Scorer, scorer_class
from textgym.scorers.registry import SCORERS

SECTIONS = ("Args", "Range", "Cost", "Source", "Example", "Raises")
"""The sections that the docstring of every scorer has, in this order; what stands before them says what it measures."""

START = """# Scorers
<!-- written by scripts/make_docs.py -->

All scorers that have a name. An env takes one by its name, or as a dict with `"name"` and the scorer's arguments; the
command line takes the same, as JSON (`--scorer`):

```json
{"name": "keyword", "words": ["great", "fine"]}
```

[Add a scorer](add_a_scorer.md) says how to bring your own, and how to combine several. How fast each one is, and which
share of a rollout's time it takes, says `python scripts/benchmark.py scorers`."""


def sections(cls: type) -> dict[str, str]:
    """Section -> its text, without its indentation; the text before the first section is under `""`."""
    text = inspect.cleandoc(cls.__doc__ or "")
    start, *parts = re.split(rf"^({'|'.join(SECTIONS)}):", text, flags=re.M)
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    return {"": start.strip()} | {name: inspect.cleandoc(part) for name, part in named.items()}


def example(cls: type) -> Any:
    """The JSON form that a scorer's docstring shows, as the value that it stands for."""
    return json.loads(sections(cls)["Example"].strip("`"))


def page() -> str:
    """The Markdown page of all scorers."""
    families: dict[str, list[str]] = {}
    for name in SCORERS:
        families.setdefault(scorer_class(name).__module__, []).append(name)
    parts = [START, "\n".join(["| scorer | what is paid | family |", "|---|---|---|", *map(overview, SCORERS)])]
    for module in sorted(families):
        parts += [f"## {title(module)}", first_paragraph(module), *map(entry, families[module])]
    return "\n\n".join(parts) + "\n"


def overview(name: str) -> str:
    """The line of a scorer in the table at the top."""
    cls = scorer_class(name)
    what, family = sections(cls)[""].partition("\n")[0].replace("|", r"\|"), title(cls.__module__)
    anchor = family.lower().replace(":", "").replace(" ", "-")
    return f"| [`{name}`](#{name}) | {what} | [{family.removeprefix('Family: ')}](#{anchor}) |"


def title(module: str) -> str:
    """The heading of a family, such as "Family: word frequencies"; no scorer has the same one."""
    return f"Family: {module.rpartition('.')[2].replace('_', ' ')}"


def first_paragraph(module: str) -> str:
    """What a module's docstring begins with."""
    return inspect.cleandoc(sys.modules[module].__doc__ or "").partition("\n\n")[0]


def entry(name: str) -> str:
    """What a scorer measures, its range, cost and source, its JSON form, and its arguments."""
    cls = scorer_class(name)
    said = sections(cls)
    facts = [f"- **{section}**: {' '.join(said[section].split())}" for section in ("Range", "Cost", "Source")]
    rows = [row(argument) for argument in arguments(cls)]
    return "\n\n".join(
        [
            f"### {name}",
            f"`textgym.scorers.{cls.__name__}`. {said['']}",
            "\n".join(facts),
            f"```json\n{said['Example'].strip('`')}\n```",
            "\n".join(["| argument | default | accepted | meaning |", "|---|---|---|---|", *rows]),
        ]
    )


def arguments(cls: type[Scorer]) -> list[Argument]:
    """The arguments of a scorer, as JSON names them."""
    constructor: Any = cls.__init__
    module, owner = sys.modules[constructor.__module__], next(base for base in cls.__mro__ if "__init__" in vars(base))
    hints = get_type_hints(constructor, vars(module) | imported_for_types(module), include_extras=True)
    helps = descriptions(owner) | descriptions(cls)
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return [
        Argument("component_name" if p.name == "name" else p.name, hints[p.name], p.default, helps[p.name], owner)
        for p in parameters
    ]


def imported_for_types(module: Any) -> dict[str, Any]:
    """What a module imports for type checkers alone, because it is heavy."""
    found: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__name__, "exec"), found)
    return found
