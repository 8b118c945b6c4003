"""The snippets of the README and the docs, as typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def run(command, cwd):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_five_snippets():
    assert [kind for kind, _ in BLOCKS] == ["python", "python", "bash", "python", "python"]


@pytest.mark.parametrize(
    ("index", "expected"),
    [(0, r"\(reward [+-]\d"), (1, r"[+-]\d\.\d\d .*\w+"), (3, r"target: 0\.0[0-4]"), (4, r"\d+\.\d tokens")],
    ids=["first", "agent", "exact", "reward"],
)
def test_python_snippets(index, expected, tmp_path):
    assert re.search(expected, run([sys.executable, "-c", BLOCKS[index][1]], tmp_path))


def test_script_snippet(tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    out = run(["bash", "-euc", BLOCKS[2][1]], tmp_path)
    assert "[The plot]" in out and "distinct-2" in out
    assert (tmp_path / "runs" / "first" / "evaluation.json").is_file()


@pytest.mark.parametrize("name", ["constraints", pytest.param("sampling", marks=pytest.mark.slow)])
def test_pages_as_typed(name, tmp_path):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert blocks
    run([sys.executable, "-c", "\n".join(blocks)], tmp_path)
