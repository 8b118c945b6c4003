"""Pages of the docs, and the blocks of code in them."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    """The text of `docs/<name>.md`; of another file where `name` has an ending."""
    path = ROOT / name if name.endswith(".md") else ROOT / "docs" / f"{name}.md"
    return path.read_text(encoding="utf-8")


def blocks(text: str, language: str = "python") -> list[str]:
    """The fenced blocks of a language, in order; indented fences are part of something else."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level, up to the next one."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found


def logged_names(text: str) -> set[str]:
    """The names of logged values that a page writes, such as `rollout/reward`."""
    return set(re.findall(r"`((?:rollout|train|target|time)/\w+)`", text))


def run(command: list[str], cwd: Path, path: Path = ROOT) -> str:
    """Run a program, which must succeed, on the packages in `path`; returns what it printed."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": programs, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_python(arguments: list[str], cwd: Path, path: Path = ROOT) -> str:
    """`run` for this Python."""
    return run([sys.executable, *arguments], cwd, path)
