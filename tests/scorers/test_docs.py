"""The code blocks of docs/add_a_scorer.md run as typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from textgym.scorers.registry import SCORERS

ROOT = Path(__file__).parents[2]


def test_the_table_lists_every_scorer():
    page = (ROOT / "docs" / "add_a_scorer.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == sorted(SCORERS)


def test_the_page_runs(tmp_path):
    page = (ROOT / "docs" / "add_a_scorer.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 7
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
