"""What `scripts/compare_prompts.py` asks, and the table of what it finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

from scripts.command_line import parse_json
from scripts.evaluation_arguments import side_by_side
from scripts.policies import Loaded, ModelArgs
from scripts.sampling.texts import chooser
from textgym.arguments import Count
from textgym.evaluation import Interval, play
from textgym.few_shot import FewShot
from textgym.prompt_sources import named_rows, with_arguments

OF_THE_ENV = ("name", "prompts", "level", "split")
"""Arguments of `few_shot` that an entry does not have, because all entries ask the same questions."""


@dataclass
class Args(ModelArgs):
    """How to ask, and what."""

    entries: tyro.conf.Positional[tuple[str, ...]] = ()
    """JSON objects of arguments of `few_shot`: `'{"examples": 4, "choice": "nearest"}'`. Others are compared to the
    first."""
    questions: Count = 100
    """How many different questions, drawn by `--seed`."""
    num_generations: Count = 4
    """Completions of each question."""
    deterministic: bool = False
    """Always the likeliest token, and so one completion of each question."""
    json: Path | None = None
    """Write the numbers to this file, with the mean reward of each question."""

    def asked(self) -> list[dict[str, Any]]:
        """The entries' arguments.

        Raises:
            ValueError: there is none, or one is no object, or says what is asked.
        """
        if not self.entries:
            raise ValueError("at least one entry is needed, such as '{\"examples\": 4}'")
        parsed = [parse_json("entries", entry) for entry in self.entries]
        for entry in parsed:
            if not isinstance(entry, dict):
                raise ValueError(f"an entry is a JSON object of arguments of few_shot, not {entry!r}")
            if wrong := [name for name in entry if name in OF_THE_ENV]:
                raise ValueError(f"the entry {entry} has {wrong[0]!r}, but the questions are the same for all entries")
        return parsed

    def group(self) -> int:
        """Completions of each question."""
        return 1 if self.deterministic else self.num_generations

    def rows(self) -> int:
        """Episodes side by side."""
        return side_by_side(self.questions, self.group())


@dataclass(frozen=True)
class Asked:
    """What one entry gave.

    Attributes:
        entry: as it was written.
        rewards: the mean reward of each question's completions.
        tokens: of a prompt, the mean.
    """

    entry: str
    rewards: list[float]
    tokens: float


def questions_of(loaded: Loaded, entry: dict[str, Any]) -> FewShot:
    """The questions of the env, asked as an entry says."""
    spec = gym.spec(loaded.env_id)
    kwargs = spec.kwargs | loaded.env_kwargs
    prompts = with_arguments(kwargs.get("prompts", "reviews"), level=kwargs.get("level"), split=kwargs.get("split"))
    return named_rows({"name": "few_shot", "prompts": prompts, **entry}, loaded.env.unwrapped.task.prompts.limit)


def ask(loaded: Loaded, entry: str, source: FewShot, args: Args) -> Asked:
    """The rewards of an entry: the same questions for all, and the same random numbers.

    Raises:
        ValueError: there are fewer questions than are asked for.
    """
    if args.questions > len(source):
        raise ValueError(f"--questions is {args.questions}, but there are {len(source)}")
    numbers = np.random.default_rng(args.seed).permutation(len(source))[: args.questions].tolist()
    prompts = [source.ask(number, np.random.default_rng([args.seed, number])) for number in numbers]
    torch.manual_seed(args.seed)
    rows, rewards = [prompt for prompt in prompts for _ in range(args.group())], list[float]()
    choose = chooser(loaded.token_model, args.deterministic)
    for start in range(0, len(rows), args.rows()):
        found = play(loaded.env, choose, prompts=rows[start : start + args.rows()])
        rewards += [one.reward or 0.0 for one in found]
    means = np.reshape(rewards, (args.questions, args.group())).mean(-1)
    limit = loaded.env.unwrapped.task.prompts.limit
    return Asked(entry, means.tolist(), float(np.mean([limit.tokens(prompt["prompt"]) for prompt in prompts])))


def report(results: Sequence[Asked], where: str, args: Args) -> str:
    """The table as Markdown."""
    caption = (
        f"{where}, {args.questions} questions, {args.group()} completions each; mean and 95% interval over questions, "
        "differences question by question."
    )
    lines = ["| few_shot | tokens of a prompt | reward | minus the first |", "| --- | --: | --: | --: |"]
    for one in results:
        less = [mine - firsts for mine, firsts in zip(one.rewards, results[0].rewards, strict=True)]
        difference = "" if one is results[0] else Interval.of(less).text("{:+.3f}")
        words = json.dumps(json.loads(one.entry))
        lines.append(f"| `{words}` | {one.tokens:.0f} | {Interval.of(one.rewards).text('{:.3f}')} | {difference} |")
    return "\n".join(["", caption, "", *lines])
