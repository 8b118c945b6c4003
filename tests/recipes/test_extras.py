"""Every extra of the package can be installed with the versions of constraints.txt."""

import sys
import tomllib

import pytest

from tests.helpers.docs import ROOT, run

EXTRAS = {*tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]}
APART = "openenv", "verifiers"
"""They need different majors of the package mcp, so that no environment can have both."""


@pytest.mark.slow
@pytest.mark.parametrize("one", APART)
def test_the_extras_fit_the_constraints(one):
    extras = ",".join(sorted(EXTRAS - {*APART} | {one}))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-build-isolation"]
    run([*pip, "-c", "constraints.txt", f".[{extras}]"], ROOT)
