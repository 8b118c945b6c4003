"""The tests of the bridges that need their library, each in an environment of its own that has it.

They are in `in_NAME.py`, whose head names the packages, and run as `runs/recipes/in_NAME/bin/python -m pytest ...`.
"""

from pathlib import Path

import pytest

from tests.helpers.docs import ROOT, run
from tests.helpers.environments import python_for

FILES = sorted(Path(__file__).parent.glob("in_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bridge(file):
    print(run([str(python_for(file)), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)], ROOT))
