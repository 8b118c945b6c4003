"""The page docs/exact.md: its snippets as typed, and what it names."""

import re
from pathlib import Path

import torch

import textgym.exact
from textgym.exact import TokenTree

PAGE = (Path(__file__).parent.parent.parent / "docs" / "exact.md").read_text(encoding="utf-8")


def test_snippets_run(capsys):
    torch.manual_seed(0)
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S):
        exec(compile(code, "exact.md", "exec"), names)
    assert (names["tree"].num_contexts, names["tree"].num_outcomes) == (85, 341)  # as its comment says
    assert "total variation 0.0" in capsys.readouterr().out


def test_everything_public_is_named_and_exists():
    functions = set(re.findall(r"\b(\w+)\(", PAGE))
    assert set(textgym.exact.__all__) - {"Solution"} <= functions
    attributes = set(re.findall(r"\b(?:tree|TokenTree)\.(\w+)", PAGE))
    assert attributes <= {"num_tokens", *dir(TokenTree)}
    methods = {name for name, value in vars(TokenTree).items() if callable(value) and name[0] != "_"}
    assert methods <= attributes
