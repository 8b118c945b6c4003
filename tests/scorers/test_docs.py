"""The page docs/add_a_scorer.md: its scorer as two new places in TextGym."""

import re

from tests.helpers.changes import changed_copy, changes
from tests.helpers.docs import page, run_python

PAGE = page("add_a_scorer")


def test_a_file_and_a_row_are_a_scorer_in_textgym(tmp_path):
    copy = changed_copy(tmp_path, changes(PAGE))
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
    out = run_python(["-c", code], copy, copy)
    assert out == f"{copy}/textgym/__init__.py [2.0, 2.0, 0.0] True\n"
    line = r"  vocabulary +The number of different words in the completion, up to a limit\."
    assert re.search(line, run_python(["-m", "textgym"], copy, copy))
