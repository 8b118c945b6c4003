"""`python -m textgym`: every env id, scorer and agent, with one line each. It imports no torch."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

from textgym.scorers.registry import SCORERS, scorer_class
from textgym.tasks import TASKS

CHECKOUT = Path(__file__).parent.parent
"""The folder that holds `agents` too, where the package is used from a checkout."""


def first_line(docstring: str | None) -> str:
    """What a docstring begins with."""
    return (docstring or "").strip().partition("\n")[0]


def agents_in(checkout: Path) -> dict[str, str]:
    """Name and first line of every agent of a checkout; {} where the package is installed alone.

    The sources are parsed and not imported, since textgym depends on no agent, and agents import torch. A folder named
    `agents` beside an installed package may be another distribution's, so it counts only beside a `pyproject.toml`.
    """
    folder = checkout / "agents"
    if not ((checkout / "pyproject.toml").is_file() and (folder / "__init__.py").is_file()):
        return {}
    bodies = {file.stem: ast.parse(file.read_text(encoding="utf-8")).body for file in sorted(folder.glob("*.py"))}
    classes = {node.name: node for body in bodies.values() for node in body if isinstance(node, ast.ClassDef)}
    public = [node.value for node in bodies["__init__"] if isinstance(node, ast.Assign) and "__all__" in names_of(node)]
    return {name: first_line(ast.get_docstring(classes[name])) for value in public for name in ast.literal_eval(value)}


def names_of(assignment: ast.Assign) -> list[str]:
    """The names that are assigned to."""
    return [target.id for target in assignment.targets if isinstance(target, ast.Name)]


def show(title: str, lines: dict[str, str]) -> None:
    """Print one list."""
    width = max(map(len, lines))
    print(title, *(f"  {name:<{width}}  {line}" for name, line in lines.items()), sep="\n", end="\n\n")


def main() -> None:
    """Print the lists."""
    argparse.ArgumentParser(prog="python -m textgym", description="Lists env ids, scorers and agents.").parse_args()
    show('Env ids, for gymnasium.make("TextGen-v0"):', {task.id: task.summary for task in TASKS.values()})
    show('Scorers, for scorer="sentiment":', {name: first_line(scorer_class(name).__doc__) for name in SCORERS})
    if agents := agents_in(CHECKOUT):
        show("Agents, for `from agents import PPO`:", agents)
    else:
        print("Agents come with a checkout of the repository; this is the package alone.")


if __name__ == "__main__":
    main()
