"""The page docs/add_a_scorer.md as typed: its code, its table, and its scorer as two new places in TextGym."""

import re
import shutil

from tests.helpers.docs import ROOT, blocks, page, run_python
from textgym.scorers.registry import SCORERS

PAGE = page("add_a_scorer")
BLOCKS = blocks(PAGE)
ROW = re.findall(r"^```\n( +\"vocabulary\".*\n)```", PAGE, re.M)[0]


def test_the_table_lists_every_scorer():
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == sorted(SCORERS)


def test_the_page_runs(tmp_path):
    assert len(BLOCKS) == 8
    (tmp_path / "page.py").write_text("\n".join(BLOCKS).replace("from __future__ import annotations\n", ""))
    run_python(["page.py"], tmp_path)


def test_a_file_and_a_row_are_a_scorer_in_textgym(tmp_path):
    shutil.copytree(ROOT / "textgym", tmp_path / "textgym", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "textgym" / "scorers" / "vocabulary.py").write_text(BLOCKS[-1])
    registry = tmp_path / "textgym" / "scorers" / "registry.py"
    registry.write_text(registry.read_text().replace("SCORERS = {\n", "SCORERS = {\n" + ROW, 1))
    code = """
import gymnasium as gym
import textgym
from textgym.scorers import Vocabulary
from textgym.testing import check_env, check_scorer, make_generations

check_scorer("vocabulary", pickles=True)
check_env(gym.make("TextGen-v0", tokenizer="bytes", max_prompt_tokens=64, scorer={"name": "vocabulary", "limit": 3}))
batch = make_generations(["a"] * 3, ["so, so good", "it is what it is", ""])
print(textgym.__file__, Vocabulary(limit=2).evaluate(batch).rewards.tolist(), "Vocabulary" in textgym.scorers.__all__)
"""
    out = run_python(["-c", code], tmp_path, tmp_path)
    assert out == f"{tmp_path}/textgym/__init__.py [2.0, 2.0, 0.0] True\n"
    line = "vocabulary    The number of different words in the completion, up to a limit."
    assert line in run_python(["-m", "textgym"], tmp_path, tmp_path)
