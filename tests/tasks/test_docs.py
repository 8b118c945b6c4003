"""The page docs/add_an_env_id.md as typed: in a program of one's own, and as the one new file in TextGym."""

import pytest

from tests.helpers.changes import changed_copy, changes
from tests.helpers.docs import blocks, page, run_python

PAGE = page("add_an_env_id")
REGISTER, CHECK = blocks(PAGE)
(FAMILY,) = changes(PAGE)


def test_in_a_program_of_ones_own(tmp_path):
    run_python(["-c", REGISTER + CHECK + "assert vector_env.num_envs == 64\n"], tmp_path)


def test_both_examples_are_the_same_task():
    own, family = {}, {}
    exec(REGISTER.partition("register(HAIKU)")[0], own)
    exec(FAMILY.text, family)
    assert family["TASKS"] == [own["HAIKU"]]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the packages, with the page's file in it and nothing else changed."""
    return changed_copy(tmp_path_factory.mktemp("checkout"), [FAMILY])


def test_one_new_file_is_an_id_in_textgym(checkout):
    code = "import gymnasium as gym, textgym\n" + CHECK + 'print(textgym.__file__, gym.spec("Haiku-v0").kwargs)'
    out = run_python(["-c", code], checkout, checkout)
    assert out.startswith(str(checkout)) and "The old pond" in out
    assert "  Haiku-v0     " in run_python(["-m", "textgym"], checkout, checkout)


def test_its_page_can_be_written(checkout):
    code = """
import gymnasium as gym
from scripts.env_pages import class_page, id_page
from textgym.tasks import TASKS
print(id_page(TASKS["Haiku-v0"], gym.make("Haiku-v0")), class_page())
"""
    out = run_python(["-c", code], checkout, checkout)
    assert "# Haiku-v0" in out and "- `Autumn`\n- `The old pond`" in out and "| [`Haiku-v0`](Haiku-v0.md) |" in out
