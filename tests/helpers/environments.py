"""An environment of its own for a recipe: what its head names, above the packages of this environment."""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from tests.helpers.docs import ROOT

RECIPES = sorted((ROOT / "scripts" / "recipes").glob("[!_]*.py"))
FOLDER = ROOT / "runs" / "recipes"
"""Where the environments are kept between runs."""


def requirements(recipe: Path) -> list[str]:
    """The `dependencies` of the inline script metadata (PEP 723) of a recipe, TextGym itself left out."""
    (text,) = re.findall(r"(?m)^# /// script\n((?:^# .*\n)+)^# ///$", recipe.read_text(encoding="utf-8"))
    metadata = tomllib.loads("".join(line[2:] + "\n" for line in text.splitlines()))
    return [name for name in metadata["dependencies"] if not name.startswith("textgym")]


def python_for(recipe: Path) -> Path:
    """The Python of the recipe's environment, which is made where it is missing or other packages are asked for.

    It sees the packages of the running Python too, torch among them, as far as it has none of its own.
    """
    wanted, folder = requirements(recipe), FOLDER / recipe.stem
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8").split("\n") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        shared = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "shared.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in shared))
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    return python
