"""Write the generated pages of the documentation: `python scripts/make_docs.py`."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym

from scripts import scorer_pages
from scripts.agent_pages import with_tables
from scripts.env_pages import class_page, id_page
from scripts.experiments.score_tables import known_scores, zoo_page
from scripts.gallery import gallery
from textgym.tasks import TASKS

ENVS = Path(__file__).parent.parent / "docs" / "envs"
AGENTS = ENVS.parent / "agents"


def main() -> None:
    """Write all pages."""
    pages = {task.id: id_page(task, gym.make(task.id)) for task in TASKS.values()}
    for name, text in {**pages, "README": class_page()}.items():
        (ENVS / f"{name}.md").write_text(text, encoding="utf-8")
    (ENVS.parent / "scorers.md").write_text(scorer_pages.page(), encoding="utf-8")
    (ENVS.parent / "gallery.md").write_text(gallery(), encoding="utf-8")
    if (scores := known_scores()) is not None:
        (ENVS.parent / "zoo.md").write_text(zoo_page(scores), encoding="utf-8")
    for page in AGENTS.glob("*.md"):
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
