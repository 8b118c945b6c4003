"""Lay out the pages for mkdocs: `python scripts/make_site.py runs/site` (`make site` also builds them).

The pages in docs/ are written for a viewer of files, such as that of a forge: they link to sources, and a block of code
may begin with the name of a file. Here they are copied to a folder that mkdocs takes, the sources that they link to
beside them, and such names become titles. This needs no package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)#\s]+)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)


def page_of(source: Path) -> Path:
    """Where a file of the repository lies below the folder of pages."""
    if source.is_relative_to(DOCS):
        return source.relative_to(DOCS).with_suffix(".md" if source.suffix == ".ipynb" else source.suffix)
    inside = source.relative_to(ROOT)
    return Path("project") / (inside / "README.md" if source.is_dir() else inside)


def linked(source: Path, text: str) -> Iterator[Path]:
    """The files and folders of the repository that a page links to."""
    for _, target in LINK.findall(CODE.sub("", text)):
        yield (source.parent / target).resolve()


def for_mkdocs(source: Path, text: str) -> str:
    """A page with its links as they are below the folder of pages, and names of files as titles of their blocks."""
    here = page_of(source).parent

    def relative(match: re.Match[str]) -> str:
        path = page_of((source.parent / match[2]).resolve())
        return match[1] + Path(os.path.relpath(path, here)).as_posix()

    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(relative, text[end : code.start()]), code[0]]
        end = code.end()
    text = "".join([*parts, LINK.sub(relative, text[end:])])
    return re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', text, flags=re.M)


def text_of(source: Path) -> str:
    """A page as Markdown; of a folder, the names in it, and of a notebook, its cells."""
    if source.is_dir():
        names = sorted(path.name for path in source.iterdir() if path.name != "__pycache__")
        return "\n".join([f"# {source.relative_to(ROOT)}", "", *(f"- {name}" for name in names), ""])
    text = source.read_text(encoding="utf-8")
    if source.suffix != ".ipynb":
        return text
    cells = [("".join(cell["source"]), cell["cell_type"]) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{code}\n```" if kind == "code" else code for code, kind in cells) + "\n"


def lay_out(out: Path) -> None:
    """Write `mkdocs.yml` and the folder `pages`, which is made anew."""
    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md", "*.ipynb", "mkdocs.yml"))
    shutil.copy(DOCS / "mkdocs.yml", out)
    waiting, done = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")], set()
    while waiting:
        source = waiting.pop()
        target = pages / page_of(source)
        if source in done:
            continue
        done.add(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() or source.suffix in (".md", ".ipynb"):
            text = text_of(source)
            waiting += linked(source, text)
            target.write_text(for_mkdocs(source, text), encoding="utf-8")
        elif not target.exists():
            shutil.copy(source, target)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    lay_out(Path(sys.argv[1]))
