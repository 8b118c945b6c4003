"""What other scorers than the env's say of episodes that are finished: scorers that training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from textgym.envs.finished import scores_by_step
from textgym.envs.task import TextTask
from textgym.mdp import IntArray
from textgym.scorers import Scorer, make_scorer
from textgym.scorers.base import refuse_unscored
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
    totals = {name: torch.zeros(len(episodes), dtype=torch.float64) for name in scorer.component_names}
    for rows, _, scores in scores_by_step(task, scorer, *_arrays(episodes)):
        for name, values in scores.components.items():
            totals[name][rows] += torch.from_numpy(values)
    return totals


def rescore(task: TextTask, scorer: Scorer, episodes: Episodes) -> Episodes:
    """The episodes with the rewards and components that an env with another scorer would have given them.

    Args:
        task: see `score_episodes`, as for the others.
        scorer: the other one.
        episodes: E of them, finished.

    Raises:
        ValueError: episodes have several turns.
        ScorerError: the scorer failed, or nothing applies to an episode.
        IndexError: see `score_episodes`.
    """
    task.mdp.refuse_turns("rescore")
    rewards, device = torch.zeros(episodes.rewards.shape), episodes.rows.device
    components = torch.zeros(len(episodes), len(scorer.component_names))
    for rows, generations, scores in scores_by_step(task, scorer, *_arrays(episodes)):
        refuse_unscored(scorer.name, scores.rewards, generations)
        rewards[rows, torch.from_numpy(generations.lengths) - 1] = torch.from_numpy(scores.rewards).float()
        paid = np.stack([scores.components[name] for name in scorer.component_names], -1)
        components[rows] += torch.from_numpy(paid).float()
    return episodes.replace(rewards=rewards.to(device), components=components.to(device))


def _arrays(episodes: Episodes) -> tuple[IntArray, IntArray]:
    """Last observations, (E, P + T) int64, and prompt ids, (E,), for scorers."""
    return episodes.rows.cpu().numpy().astype(np.int64), episodes.prompt_ids.cpu().numpy()
