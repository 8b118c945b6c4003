"""The page docs/exact.md: what it names exists, and the toy is as large as it says."""

import re

import gymnasium as gym

import textgym.exact
from tests.helpers.docs import page
from textgym.exact import AnswerTree, TokenTree

PAGE = page("exact")


def test_the_toy_is_as_large_as_the_page_says():
    tree = TokenTree.of(gym.make("TextGenToy-v0"))
    assert f"# {tree.num_contexts} contexts, {tree.num_outcomes} outcomes" in PAGE


def test_everything_public_is_named_and_exists():
    functions = set(re.findall(r"\b(\w+)\(", PAGE))
    assert set(textgym.exact.__all__) - {"Batch", "CreditComparison", "Moments", "Optimum", "Solution"} <= functions
    attributes = set(re.findall(r"\b(?:tree|TokenTree)\.(\w+)", PAGE))
    assert attributes <= {"num_tokens", *dir(TokenTree)}
    assert set(re.findall(r"\b(?:answers|AnswerTree)\.(\w+)", PAGE)) <= set(dir(AnswerTree))
    methods = {name for name, value in vars(TokenTree).items() if callable(value) and name[0] != "_"}
    assert methods <= attributes
