"""Every option of every script has a sentence in its `--help`."""

import ast
import inspect
import re

import pytest

from scripts.agent_arguments import COMMANDS, written_arguments
from scripts.benchmark import SUBCOMMANDS
from scripts.command_line import ELSEWHERE
from tests.helpers.docs import ROOT

CLASSES = {
    f"{path.relative_to(ROOT)}:{node.name}": node
    for path in sorted((ROOT / "scripts").rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef) and node.name.endswith("Args")
}
"""The dataclasses of options, by file and name; tyro shows the text below a field, or that of the class it is from."""


def fields_of_bases(node):
    """The names of the fields that a class has from the other classes here."""
    bases = {ast.unparse(base) for base in node.bases}
    named = {name: {name.rpartition(":")[2], name.rpartition("/")[2].replace(".py:", ".")} for name in CLASSES}
    of_bases = [other for name, other in CLASSES.items() if named[name] & bases]  # `Args` or `runs.Args`
    here = {ast.unparse(field.target) for base in of_bases for field in base.body if isinstance(field, ast.AnnAssign)}
    return here.union(*(fields_of_bases(base) for base in of_bases))


def test_the_classes_are_those_of_all_scripts():
    files = {name.partition(":")[0] for name in CLASSES}
    for script in (ROOT / "scripts").glob("*.py"):
        text = script.read_text(encoding="utf-8")
        if re.search(r"^from .* import .*\bArgs\b", text, re.M):
            assert any(file.removesuffix(".py").replace("/", ".") in text for file in files), script
    assert len(CLASSES) > 10


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_has_a_sentence(name):
    body, inherited = CLASSES[name].body, fields_of_bases(CLASSES[name])
    for field, below in zip(body, [*body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in (kind := ast.unparse(field.annotation)):
            continue
        if "help_of(" in kind or "arg(name='')" in kind:  # the agent's own words; a group of options
            continue
        if ast.unparse(field.target) in inherited:
            continue
        assert isinstance(below, ast.Expr) and ast.unparse(below).strip("'\"").endswith("."), ast.unparse(field.target)


def test_the_options_of_agents_and_benchmarks_have_one_too():
    for command in COMMANDS.values():
        assert all(argument.help for argument in written_arguments(command.algorithm).values())
    for function in SUBCOMMANDS.values():
        for name in inspect.signature(function).parameters:
            assert f"\n    {name}: " in inspect.getdoc(function), (function.__name__, name)


def test_what_other_libraries_call_otherwise_is_no_option_here():
    names = {
        ast.unparse(line.target) for cls in CLASSES.values() for line in cls.body if isinstance(line, ast.AnnAssign)
    }
    names |= {name for command in COMMANDS.values() for name in written_arguments(command.algorithm)}
    names |= {name for function in SUBCOMMANDS.values() for name in inspect.signature(function).parameters}
    options = {f"--{name.replace('_', '-')}" for name in names}
    assert "--total-timesteps" in options and not options & set(ELSEWHERE)
