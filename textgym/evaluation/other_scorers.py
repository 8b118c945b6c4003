"""What other scorers than the env's say of episodes that are finished: scorers that training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from textgym.envs.task import TextTask
from textgym.scorers import Generations, Scorer, make_scorer
from textgym.training.episodes import Episodes


def make_scorers(scorers: Sequence[Any]) -> list[Scorer]:
    """Scorers, each in any form that an env's `scorer` takes.

    Raises:
        ValueError: one cannot be made, or two report a component of the same name.
    """
    made = [make_scorer(scorer) for scorer in scorers]
    names = [name for scorer in made for name in scorer.component_names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two of the scorers report the component {twice[0]!r}; give one another component_name")
    return made


def score_episodes(task: TextTask, scorer: Scorer, episodes: Episodes) -> dict[str, torch.Tensor]:
    """A scorer's components, (E,) float64 each by name, as an env with it would report them; NaN where none applies.

    Args:
        task: the env's; its own scorer is not asked.
        scorer: asked once for all episodes, or, where it pays per token, once for every step.
        episodes: E of them, finished.

    Raises:
        ScorerError: the scorer failed.
        IndexError: a prompt that a sampler brought is no longer known.
    """
    rows, lengths = episodes.rows.cpu().numpy().astype(np.int64), episodes.lengths.cpu().numpy()
    prompt_ids, start = episodes.prompt_ids.cpu().numpy(), task.mdp.max_prompt_tokens
    totals = {name: np.zeros(len(rows)) for name in scorer.component_names}
    for step in range(1, task.mdp.max_new_tokens + 1) if scorer.per_token else [task.mdp.max_new_tokens]:
        moved = np.flatnonzero(lengths >= step) if scorer.per_token else np.arange(len(rows))
        if not len(moved):
            break
        seen, written = rows[moved], np.minimum(lengths[moved], step)
        seen[:, start + step :] = task.mdp.pad_id
        ended = written == lengths[moved]
        parts = task.mdp, task.tokenizer, task.prompts
        scores = scorer.evaluate(Generations(*parts, seen, prompt_ids[moved], moved, written, ended, task.trainer))
        for name, values in scores.components.items():
            totals[name][moved] += values
    return {name: torch.from_numpy(values) for name, values in totals.items()}
