"""The gallery of the env ids, `docs/gallery.md`, from the registry and the starting points that were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym

from scripts.env_pages import NOTE, fill
from textgym.tasks import TASKS, Task

STARTING_POINTS = Path(__file__).parent.parent / "docs" / "starting_points.json"
GROUP = 64
"""Texts for each prompt where an answer is right or wrong: pass@64 is then the share of prompts with a right one."""

OPTIMUM = {"TextGenToy-v0": "4: the optimum, computed: [exact](exact.md)"}
"""What stands as the best where no policy can be better."""


def read_measured() -> dict[str, Any]:
    """What was measured, by id: `"ids"`, the starting points, and `"best"`, the best that is known to be learned."""
    known = json.loads(STARTING_POINTS.read_text(encoding="utf-8")) if STARTING_POINTS.is_file() else {}
    return {"ids": {}, "best": {}} | known


def write_measured(**changed: dict[str, Any]) -> None:
    """Exchange `ids` or `best`, and keep the rest."""
    known = read_measured() | {name: dict(sorted(of_ids.items())) for name, of_ids in changed.items()}
    STARTING_POINTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def gallery() -> str:
    """The Markdown page."""
    known = read_measured()
    rows = [row(task, known["ids"].get(task.id), known["best"].get(task.id)) for task in TASKS.values()]
    words = f"""\
P, T and V are the most tokens of a prompt, the most of a completion, and the size of the vocabulary. The starting
point is the mean reward of the untrained model, ± its standard error over texts, or over prompts where there are
several texts of each; pass@{GROUP} is the share of prompts of which one of {GROUP} texts is right. `python
scripts/starting_points.py --ids ID` measures it again; what it found stands, with the versions, in
[starting_points.json](starting_points.json). Where a task with constraints has not been measured so, its features'
base rates stand there. The best known is the mean reward on held-out prompts (`split="test"`), after the training that
the command does on the others, with the KL to the untrained model in nats per text."""
    head = f"| id | P | T | V | starting point | pass@1 | pass@{GROUP} | best known | task |"
    parts = ["# The ids in one table", NOTE, "", fill(words), "", head, "|---" * 9 + "|", *rows, ""]
    return "\n".join(parts)


def row(task: Task, start: dict[str, Any] | None, best: dict[str, Any] | None) -> str:
    """The row of an id."""
    mdp = gym.make(task.id).unwrapped.mdp  # type: ignore[attr-defined]
    cells = [f"[`{task.id}`](envs/{task.id}.md)", mdp.max_prompt_tokens, mdp.max_new_tokens, mdp.vocab_size]
    if start is None:
        rates = [f"{name} {f.base_rate:.3f} ± {f.standard_error:.3f}" for name, f in task.features.items()]
        cells += ["no model" if task.model is None else ", ".join(rates), "", ""]
    else:
        cells += [f"{start['reward']:.3f} ± {start['standard_error']:.3f}"]
        cells += [f"{start[name]:.2f}" if name in start else "" for name in ("pass@1", f"pass@{GROUP}")]
    known = OPTIMUM.get(task.id, "")
    if best is not None:
        known = f"{best['value']:.3f} ± {best['standard_error']:.3f}, KL {best['kl_to_reference']}: `{best['command']}`"
    cells += [known, task.summary.replace("|", "\\|")]
    return "| " + " | ".join(map(str, cells)) + " |"
