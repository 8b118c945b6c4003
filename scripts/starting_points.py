"""Measure what the untrained model of each id earns: `python scripts/starting_points.py --ids TextGen-v0`.

What is found is kept in `docs/starting_points.json`, from which `scripts/make_docs.py` writes the gallery.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import torch

from scripts.command_line import versions
from scripts.gallery import GROUP, read_measured, write_measured
from textgym.arguments import Range, Seed
from textgym.evaluation import ModelPolicy
from textgym.importing import did_you_mean
from textgym.sb3 import TokenPolicy
from textgym.tasks import TASKS, Task
from textgym.training import TokenModel


@dataclass
class Args:
    """What to measure."""

    ids: tuple[str, ...] = ()
    """The ids; all by default."""
    episodes: Annotated[int, Range(GROUP)] = 1024
    """Texts of each id, a multiple of 64."""
    seed: Seed = 0
    """Seeds the prompts and the texts."""


def is_verifiable(task: Task, env: Any) -> bool:
    """Whether an answer is right or wrong: there is a reference, and the reward lies in [0, 1]."""
    columns = env.unwrapped.task.prompts.columns([0]) if env.unwrapped.task.prompts.num_prompts else {}
    return task.reward_range == (0.0, 1.0) and "reference" in columns


def measure(env_id: str, episodes: int, seed: int = 0) -> dict[str, Any] | None:
    """What the untrained model earns in some texts, a multiple of `GROUP`; None where no model belongs to the id."""
    task = TASKS[env_id]
    if task.model is None:
        return None
    verifiable = is_verifiable(task, gym.make(env_id))
    size = GROUP if verifiable else 1
    env = gym.make_vec(env_id, num_envs=GROUP, num_generations=size, autoreset_mode="Disabled")
    policy = ModelPolicy(env, TokenModel(**TokenPolicy.kwargs_for(env)), seed=seed, micro_batch_size=GROUP)
    returns = policy.sample_episodes(episodes).rewards.double().sum(-1).reshape(-1, size)  # (prompts, size)
    means = returns.mean(-1)
    found = {
        "episodes": episodes,
        "reward": round(means.mean().item(), 4),
        "standard_error": round((means.std() / len(means) ** 0.5).item(), 4),
    }
    if verifiable:
        right = returns >= 1
        found |= {
            "pass@1": round(right.double().mean().item(), 4),
            f"pass@{GROUP}": round(right.any(-1).double().mean().item(), 4),
        }
    return found


def main(args: Args) -> None:
    """Measure the ids one by one, and keep what is found beside what is known of the others.

    Raises:
        ValueError: there is no such id, or the episodes are no multiple of `GROUP`.
    """
    for env_id in args.ids:
        if env_id not in TASKS:
            raise ValueError(f"there is no id {env_id!r}{did_you_mean(env_id, TASKS) or ';'} there are {list(TASKS)}")
    if args.episodes % GROUP:
        raise ValueError(f"--episodes {args.episodes} is no multiple of {GROUP}")
    torch.set_num_threads(1)
    known = read_measured()["ids"]
    for env_id in args.ids or TASKS:
        if (found := measure(env_id, args.episodes, args.seed)) is None:
            continue
        known[env_id] = found
        print(env_id, json.dumps(found), flush=True)
        write_measured(ids=known, versions=versions())
