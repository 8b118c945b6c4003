"""Every recipe whose library is not among TextGym's packages, in an environment of its own that has it.

Its tests are in `in_NAME.py`, and run as `runs/recipes/NAME/bin/python -m pytest tests/recipes/in_NAME.py`.
"""

from pathlib import Path

import pytest

from tests.helpers.docs import ROOT, run
from tests.helpers.environments import RECIPES, python_for

HERE = Path(__file__).parent
CHECKED = [recipe for recipe in RECIPES if recipe.stem != "cleanrl_ppo"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", CHECKED, ids=lambda recipe: recipe.stem)
def test_recipe(recipe):
    command = [python_for(recipe), "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / f"in_{recipe.stem}.py"]
    print(run(list(map(str, command)), ROOT))
