"""The table of docs/recipes.md has every recipe, with the versions that it is tested with."""

import re

import pytest

from tests.helpers.docs import page
from tests.helpers.environments import RECIPES, requirements


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_table_has_its_versions(recipe):
    text = page("recipes")
    (section,) = (part for part in text.split("\n## ") if f"(../scripts/recipes/{recipe.name})" in part)
    (row,) = re.findall(rf"^\| \[{section.splitlines()[0]}\]\(#.*$", text, re.M)
    for requirement in requirements(recipe):
        name, version = re.fullmatch(r"([\w-]+)(?:\[.*\])?[=>]=(.*)", requirement).groups()
        assert f"{name} {version}" in row
