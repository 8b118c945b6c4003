"""The page docs/exact.md: its snippets as typed, and what it names."""

import re

import torch

import textgym.exact
from tests.helpers.docs import blocks, page
from textgym.exact import TokenTree

PAGE = page("exact")


def test_snippets_run(capsys):
    torch.manual_seed(0)
    names = {}
    for code in blocks(PAGE):
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
