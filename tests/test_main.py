"""`python -m textgym`: complete, quick, and without torch."""

import os
import resource
import subprocess
import sys

import pytest

import agents
from textgym.__main__ import CHECKOUT, agents_in, first_line, main
from textgym.scorers.registry import SCORERS
from textgym.tasks import TASKS


def listed(out):
    """The lines of each list, by its title."""
    lists = [block.splitlines() for block in out.strip().split("\n\n")]
    return {title: dict(line.split(None, 1) for line in lines) for title, *lines in lists}


def test_every_id_scorer_and_agent_has_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["textgym"])
    main()
    lines = {title.split(",")[0]: found for title, found in listed(capsys.readouterr().out).items()}
    assert list(lines) == ["Env ids", "Scorers", "Agents"]
    assert lines["Env ids"] == {task.id: task.summary for task in TASKS.values()}
    assert list(lines["Scorers"]) == list(SCORERS)
    assert lines["Scorers"]["regex"] == "The share of the completion's characters that a pattern covers, in [0, 1]."
    assert sorted(lines["Agents"]) == sorted(agents.__all__)
    for name, line in lines["Agents"].items():
        assert line == first_line(getattr(agents, name).__doc__)


def test_it_is_quick_and_imports_no_torch(tmp_path):
    code = "import runpy, sys; runpy.run_module('textgym', run_name='__main__'); print(*sorted(sys.modules))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    *_, modules = done.stdout.splitlines()
    assert not {"torch", "transformers", "stable_baselines3", "tokenizers", "agents"} & set(modules.split())
    assert "gymnasium" in modules.split() and "TextGenToy-v0" in done.stdout


def test_an_argument_that_it_does_not_know_is_refused():
    done = subprocess.run([sys.executable, "-m", "textgym", "envs"], capture_output=True, text=True)
    assert done.returncode == 2 and "unrecognized arguments: envs" in done.stderr and not done.stdout


@pytest.mark.parametrize("checkout", [True, False])
def test_agents_are_those_of_a_checkout_only(tmp_path, checkout):
    """Another distribution's `agents` may lie beside an installed package."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("from agents.one import One\n__all__ = ['One']\n")
    (tmp_path / "agents" / "one.py").write_text('raise SystemExit\nclass One:\n    """It learns.\n\n    Well."""\n')
    if checkout:
        (tmp_path / "pyproject.toml").touch()
    assert agents_in(tmp_path) == ({"One": "It learns."} if checkout else {})
    assert agents_in(tmp_path / "agents") == {}


def test_the_package_alone_says_where_agents_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["textgym"])
    monkeypatch.setattr("textgym.__main__.CHECKOUT", tmp_path)
    main()
    assert "Agents come with a checkout" in capsys.readouterr().out
    assert os.path.samefile(CHECKOUT, os.path.dirname(os.path.dirname(agents.__file__)))
