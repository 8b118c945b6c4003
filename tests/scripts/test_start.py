"""Help and mistakes are told before torch and the like are imported, and are the same as afterwards."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from scripts.command_line import parse
from scripts.start import HEAVY, OURS, StandIn, stand_ins

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = sorted(
    path.stem for path in SCRIPTS.glob("*.py") if "    start_script(__file__)" in path.read_text(encoding="utf-8")
)
PAGES = [
    *([name, "--help"] for name in NAMES),
    *(["train", agent, "--help"] for agent in ("ppo", "distribution-matching", "dpo")),
    *(["benchmark", name, "--help"] for name in ("rollout", "peft")),
]
HELP = """
import contextlib, importlib, io, json, sys
from scripts.start import stand_ins
found = []
with stand_ins():
    for script, *words in json.loads(sys.argv[1]):
        module, told = importlib.import_module(f"scripts.{script}"), io.StringIO()
        sys.argv[0] = f"{script}.py"
        try:
            with contextlib.redirect_stdout(told):
                sys.modules["scripts.command_line"].parse(module.Args, module.__doc__, words)
        except SystemExit as ended:
            found.append(told.getvalue())
print(json.dumps(found))
"""
RUN = """
import contextlib, io, json, runpy, sys
found = []
for line in json.loads(sys.argv[1]):
    sys.argv, told = line, io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            runpy.run_path(line[0], run_name="__main__")
    except SystemExit as ended:
        found.append([ended.code, told.getvalue()])
print(json.dumps([found, sorted(sys.modules)]))
"""


def output(code, *given):
    """What a program prints, as JSON."""
    words = [sys.executable, "-c", code, json.dumps(given)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def run(*lines):
    """How each of some command lines ends and what it prints, in a process of its own, and the packages there."""
    ended, modules = output(RUN, *([str(SCRIPTS / f"{script}.py"), *words] for script, *words in lines))
    return ended, {name.partition(".")[0] for name in modules}


@pytest.mark.subprocess
def test_every_help_is_the_same_as_with_the_libraries(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert len(NAMES) > 20
    for (script, *words), told in zip(PAGES, output(HELP, *PAGES), strict=True):
        module = importlib.import_module(f"scripts.{script}")
        monkeypatch.setattr(sys, "argv", [f"{script}.py"])
        with pytest.raises(SystemExit):
            parse(module.Args, module.__doc__, words)
        assert told == capsys.readouterr().out, (script, words)


@pytest.mark.subprocess
def test_help_and_mistakes_are_told_without_the_libraries():
    (told, nan, unknown, choice), modules = run(
        ["train", "--help"],
        ["train", "ppo", "--gamma", "nan"],
        ["train", "rloo", "--no-such"],
        ["evaluate", "--dtype", "float8"],
    )
    assert not HEAVY & modules
    assert told[0] == 0 and "distribution-matching" in told[1]
    assert nan[0] == "train.py: --gamma is nan; it must be in [0, 1]"
    assert unknown[0] == 2 and "--no-such" in unknown[1]
    assert choice[0] == 2 and "float8" in choice[1]


@pytest.mark.subprocess
def test_a_right_command_line_runs_with_the_libraries():
    (ended,), modules = run(["train", "ppo", "--env-id", "TextGn-v0"])
    assert "TextGn" in ended[0] and HEAVY - {"peft"} <= modules


def test_of_a_stand_in_classes_functions_and_annotations_can_be_made():
    library = StandIn()

    class Model(library.nn.Module, dict):
        @library.no_grad()
        def forward(self, x: library.Tensor | int, y: str | library.Tensor | None = None): ...

    assert Model.__mro__ == (Model, dict, object)
    assert list(inspect.signature(Model.forward).parameters) == ["self", "x", "y"]
    hints = get_type_hints(Model.forward)
    assert int in get_args(hints["x"]) and {str, type(None)} < set(get_args(hints["y"]))
    with pytest.raises(TypeError):
        iter(library)


def test_nothing_stays_that_was_imported_with_stand_ins(monkeypatch):
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in HEAVY | OURS}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    with stand_ins():
        policy = importlib.import_module("textgym.sb3.policy").TokenPolicy
        assert issubclass(policy, object) and isinstance(sys.modules["torch"].Tensor, StandIn)
    assert not {name for name in sys.modules if name.partition(".")[0] in HEAVY | OURS}
