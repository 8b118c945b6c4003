"""The page docs/add_an_env_id.md as typed: in a program of one's own, and as the one new file in TextGym."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_an_env_id.md").read_text(encoding="utf-8")
REGISTER, CHECK, FAMILY = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def run(arguments, cwd, path=ROOT):
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_in_a_program_of_ones_own(tmp_path):
    run(["-c", REGISTER + CHECK + "assert vector_env.num_envs == 64\n"], tmp_path)


def test_both_examples_are_the_same_task():
    own, family = {}, {}
    exec(REGISTER.partition("register(HAIKU)")[0], own)
    exec(FAMILY, family)
    assert family["TASKS"] == [own["HAIKU"]]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what an id needs, with the page's file in it and nothing else changed."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("textgym", "scripts"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "textgym" / "tasks" / "haiku.py").write_text(FAMILY, encoding="utf-8")
    return root


def test_one_new_file_is_an_id_in_textgym(checkout):
    code = "import gymnasium as gym, textgym\n" + CHECK + 'print(textgym.__file__, gym.spec("Haiku-v0").kwargs)'
    out = run(["-c", code], checkout, checkout)
    assert out.startswith(str(checkout)) and "The old pond" in out
    assert "  Haiku-v0     " in run(["-m", "textgym"], checkout, checkout)


def test_its_page_can_be_written(checkout):
    code = """
import gymnasium as gym
from scripts.env_pages import class_page, id_page
from textgym.tasks import TASKS
print(id_page(TASKS["Haiku-v0"], gym.make("Haiku-v0")), class_page())
"""
    out = run(["-c", code], checkout, checkout)
    assert "# Haiku-v0" in out and "- `Autumn`\n- `The old pond`" in out and "| [`Haiku-v0`](Haiku-v0.md) |" in out
