"""Changes of the source that pages of the docs show, made in a copy of the packages.

A block of code whose language is followed by a file's name is that file, or, as a diff, lines of it.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.docs import ROOT


@dataclass(frozen=True)
class Change:
    """A new file, or a diff of one; `file` is relative to the root."""

    language: str
    file: str
    text: str


def changes(text: str) -> list[Change]:
    """The changes that a page, or a part of one, shows."""
    return [Change(*found) for found in re.findall(r"^```(\w+) (\S+)\n(.*?)^```$", text, re.M | re.S)]


def changed_copy(root: Path, made: list[Change]) -> Path:
    """Copy the packages to a folder, and change them; returns the folder."""
    for folder in ("textgym", "agents", "scripts"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for change in made:
        path = root / change.file
        if change.language == "diff":
            path.write_text(patched(path.read_text(encoding="utf-8"), change.text), encoding="utf-8")
        else:
            assert not path.exists(), f"{change.file} is shown as a new file"
            path.write_text(change.text, encoding="utf-8")
    return root


def patched(source: str, diff: str) -> str:
    """A source after a diff without line numbers; the lines that it keeps or removes must occur once."""
    lines = diff.splitlines()
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != sign) for sign in "+-")
    assert source.count(old) == 1, f"not once in the source: {old}"
    return source.replace(old, new)
