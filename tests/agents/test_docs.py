"""The page docs/add_an_agent.md as typed: in a program of one's own, and in two places of TextGym."""

import shlex
import sys

import pytest

from tests.conftest import episodes_of
from tests.helpers.agents import agent
from tests.helpers.changes import Change, changed_copy
from tests.helpers.docs import blocks, page, run_python

CLASS, TRAIN, ARGUMENTS = blocks(page("add_an_agent"))
(COMMAND,) = blocks(page("add_an_agent"), "bash")


@pytest.fixture
def best_of_group():
    names = {"__name__": "best_of_group"}
    exec(compile(CLASS, "add_an_agent.md", "exec"), names)
    sys.modules["best_of_group"] = type(sys)("best_of_group")
    sys.modules["best_of_group"].__dict__.update(names)
    yield names["BestOfGroup"]
    del sys.modules["best_of_group"]


def test_the_example_by_hand(best_of_group):
    rewards = [[0.0, 4.0, None], [0.0, 0.0, 1.0], [2.0, None, None], [7.0, None, None]]
    batch = episodes_of(rewards, [[0.0] * 3] * 4, prompt_ids=[5, 5, 5, 6])
    for keep, expected in ((1, [1, 0, 0, 1]), (2, [1, 0, 1, 1])):
        made = agent(best_of_group, keep=keep, kl_coef=0.0)
        advantages = made.with_advantages(batch, made.rewards(batch)).advantages
        assert advantages.tolist() == [
            [float(e) * m for m in mask] for e, mask in zip(expected, batch.mask, strict=True)
        ]


def test_it_learns_is_saved_and_refuses_as_the_page_says(best_of_group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(TRAIN + ARGUMENTS, "add_an_agent.md", "exec"), {"BestOfGroup": best_of_group})


@pytest.mark.slow
@pytest.mark.subprocess
def test_two_places_of_textgym_make_it_a_command(tmp_path):
    copy = changed_copy(tmp_path, [Change("python", "agents/best_of_group.py", CLASS)])
    package = copy / "agents" / "__init__.py"
    text = package.read_text(encoding="utf-8").replace("__all__ = [", '__all__ = ["BestOfGroup", ')
    package.write_text("from agents.best_of_group import BestOfGroup\n" + text, encoding="utf-8")
    python, *arguments = shlex.split(COMMAND)
    assert python == "python"
    assert "BestOfGroup on TextGen-v0" in run_python(arguments, copy, copy)
    code = "from scripts.agent_pages import CLASSES, table; print(table(CLASSES['BestOfGroup']))"
    row = "| `keep` | `1` | an integer of at least 1 | how many episodes of each prompt"
    assert row in run_python(["-c", code], copy, copy)
