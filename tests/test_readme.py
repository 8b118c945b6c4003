"""The snippets of the README, as typed."""

import re

import pytest

from tests.helpers.docs import ROOT, blocks, page, run, run_python

README = page("README.md")
PYTHON, BASH = blocks(README), blocks(README, "bash")


def test_there_are_six_snippets():
    assert len(PYTHON) == 5 and len(BASH) == 1


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, r"\(reward [+-]\d"),
        (1, r"[+-]\d\.\d\d .*\w+"),
        (2, r"target: 0\.0[0-4]"),
        (3, r"\d+\.\d tokens"),
        (4, r"accuracy"),
    ],
    ids=["first", "agent", "exact", "reward", "preferences"],
)
def test_python_snippets(index, expected, tmp_path):
    assert re.search(expected, run_python(["-c", PYTHON[index]], tmp_path))


def test_script_snippet(tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    out = run(["bash", "-euc", BASH[0]], tmp_path)
    assert "[The plot]" in out and "distinct-2" in out
    assert (tmp_path / "runs" / "first" / "evaluation.json").is_file()
