"""Write the page of every env id from its env's docstrings and its row in the table: `python scripts/make_docs.py`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import gymnasium as gym

from textgym.importing import import_string
from textgym.tasks import TASKS

PAGES = Path(__file__).parent.parent / "docs" / "envs"


def page(env_id: str) -> str:
    """The Markdown page of an env id."""
    env, task = gym.make(env_id), TASKS[env_id]
    single, vector = (import_string(name, what="entry point") for name in (task.env, task.vector_env))
    facts = [
        f"# {env_id}",
        "<!-- written by scripts/make_docs.py -->",
        "| | |",
        "|---|---|",
        f"| action space | `{env.action_space}` |",
        f"| observation space | `{env.observation_space}` |",
        f'| import | `import textgym; gymnasium.make("{env_id}")` |',
    ]
    if kwargs := task.kwargs:
        facts.append(f"\nThe same as `{single.__name__}` with:\n\n```json\n{json.dumps(kwargs, indent=2)}\n```")
    docstrings = [inspect.getdoc(single), "## Vector env", inspect.getdoc(vector)]
    return "\n".join(facts) + "\n\n" + "\n\n".join(str(d) for d in docstrings) + "\n"


def main() -> None:
    """Write all pages."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for env_id in TASKS:
        (PAGES / f"{env_id}.md").write_text(page(env_id), encoding="utf-8")


if __name__ == "__main__":
    main()
