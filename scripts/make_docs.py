"""Write the page of every env id from the env's docstring and its row in the table: `python scripts/make_docs.py`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import gymnasium as gym

import textgym.registration
from textgym.envs import TextGenerationEnv, TextGenerationVectorEnv

PAGES = Path(__file__).parent.parent / "docs" / "envs"


def page(env_id: str) -> str:
    """The Markdown page of an env id."""
    env = gym.make(env_id)
    kwargs = textgym.registration.IDS[env_id]
    facts = [
        f"# {env_id}",
        "<!-- written by scripts/make_docs.py -->",
        "| | |",
        "|---|---|",
        f"| action space | `{env.action_space}` |",
        f"| observation space | `{env.observation_space}` |",
        f'| import | `import textgym; gymnasium.make("{env_id}")` |',
    ]
    if kwargs:
        facts.append(f"\nThe same as `TextGenerationEnv` with:\n\n```json\n{json.dumps(kwargs, indent=2)}\n```")
    docstrings = [inspect.getdoc(TextGenerationEnv), "## Vector env", inspect.getdoc(TextGenerationVectorEnv)]
    return "\n".join(facts) + "\n\n" + "\n\n".join(str(d) for d in docstrings) + "\n"


def main() -> None:
    """Write all pages."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for env_id in textgym.registration.IDS:
        (PAGES / f"{env_id}.md").write_text(page(env_id), encoding="utf-8")


if __name__ == "__main__":
    main()
