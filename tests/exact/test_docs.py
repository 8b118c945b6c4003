"""The page docs/exact.md: its snippets as typed, and the names in its table."""

import re
from pathlib import Path

import torch

import textgym.exact

PAGE = (Path(__file__).parent.parent.parent / "docs" / "exact.md").read_text(encoding="utf-8")


def test_snippets_run(capsys):
    torch.manual_seed(0)
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S):
        exec(compile(code, "exact.md", "exec"), names)
    assert (names["tree"].num_contexts, names["tree"].num_outcomes) == (85, 341)  # as its comment says
    assert "total variation 0.0" in capsys.readouterr().out


def test_the_table_names_everything_public():
    documented = set(re.findall(r"`(\w+)\(", PAGE))
    assert set(textgym.exact.__all__) - {"Solution"} <= documented | {"gradient"}
