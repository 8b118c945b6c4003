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
from typing import Any

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
        if match[1] is None:
            return match[0]  # code
        path = page_of((source.parent / match[2]).resolve())
        return match[1] + Path(os.path.relpath(path, here)).as_posix()

    text = re.sub(f"{CODE.pattern}|{LINK.pattern}", relative, text, flags=re.M | re.S)
    text = text.replace("```console\n", "```bash\n")  # commands without a prompt would be grey, as output is
    return re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', text, flags=re.M)


def text_of(source: Path) -> str:
    """A page as Markdown; of a folder, the names in it, and of a notebook, its cells and what they print and draw."""
    if source.is_dir():
        names = sorted(path.name for path in source.iterdir() if path.name != "__pycache__")
        return "\n".join([f"# {source.relative_to(ROOT)}", "", *(f"- {name}" for name in names), ""])
    text = source.read_text(encoding="utf-8")
    if source.suffix != ".ipynb":
        return text
    parts = []
    for cell in json.loads(text)["cells"]:
        code = "".join(cell["source"])
        parts += [f"```python\n{code}\n```" if cell["cell_type"] == "code" else code]
        parts += [shown(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def shown(output: dict[str, Any]) -> str:
    """What a cell of a notebook prints or draws, as Markdown."""
    if "text" in output:
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    return f'<img alt="what the cell draws" src="data:image/png;base64,{"".join(output["data"]["image/png"]).strip()}">'


def lay_out(out: Path) -> None:
    """Write `mkdocs.yml` and the folder `pages`, which is made anew."""
    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md", "*.ipynb", "mkdocs.yml"))
    shutil.copy(DOCS / "mkdocs.yml", out)
    waiting, done = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")], set()
    while waiting:
        if (source := waiting.pop()) in done:
            continue
        done.add(source)
        target = pages / page_of(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() or source.suffix in (".md", ".ipynb"):
            text = text_of(source)
            waiting += linked(source, text)
            target.write_text(for_mkdocs(source, text), encoding="utf-8")
        elif not target.exists():
            shutil.copy(source, target)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
