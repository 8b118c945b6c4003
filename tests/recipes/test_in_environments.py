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
    print(run([*pytest_of(recipe), str(HERE / f"in_{recipe.stem}.py")], ROOT))


@pytest.mark.slow
def test_the_envs_with_the_gymnasium_of_rllib():
    """Version 1.2.2, where all other tests have 1.4."""
    (recipe,) = (recipe for recipe in RECIPES if recipe.stem == "rllib_ppo")
    print(run([*pytest_of(recipe), "-m", "not slow and not large", "tests/envs", "tests/wrappers"], ROOT))


@pytest.mark.slow
def test_the_runs_of_a_comparison_as_tasks_of_ray():
    (recipe,) = (recipe for recipe in RECIPES if recipe.stem == "rllib_ppo")
    print(run([*pytest_of(recipe), "tests/scripts/test_workers.py"], ROOT))


@pytest.mark.slow
def test_a_search_with_optuna():
    search = ROOT / "tests" / "scripts" / "test_search.py"
    print(run([*pytest_of(search), str(search)], ROOT))


def pytest_of(recipe):
    return [str(python_for(recipe)), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
