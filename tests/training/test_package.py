"""The training core knows no RL library: it works where none is installed."""

import re

import pytest

from tests.helpers.docs import blocks, page, run_python

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("stable_baselines3", "sb3_contrib", "ray", "torchrl", "trl"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import gymnasium as gym, torch, textgym
from textgym.exact import TokenTree
from textgym.matching import make_divergence
"""
AFTER = """
assert not any(name.startswith("stable_baselines3") for name in sys.modules)
"""


@pytest.mark.subprocess
def test_training_works_without_any_rl_library(tmp_path):
    """The loop of docs/extend.md, which comes near to the exact optimum."""
    section = re.search(r"^## Another RL library\n(.*)", page("extend"), re.M | re.S)[1]
    loop, comparison = blocks(section)
    out = run_python(["-c", BLOCKED + loop + "tree = TokenTree.of(env)\n" + comparison + AFTER], tmp_path)
    assert re.fullmatch(r"total variation to the optimum: 0\.0\d\d\n", out)
