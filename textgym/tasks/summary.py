"""A report of a few ratings to a verdict of one line: summarisation, with a reference."""

from __future__ import annotations

import random
from typing import Any

from textgym.generated_prompts import generated
from textgym.tasks.base import Task

SUBJECTS = "bath bed food pool price room staff view".split()
RATINGS = {1: 3, 2: 5, 3: 7}
"""Level -> the number of ratings, which is odd, so that there is always a majority."""


def verdict(ratings: dict[str, str]) -> str:
    """What most subjects are, and which ones are not: "good but bed and view"."""
    values = list(ratings.values())
    most = max("good", "bad", key=values.count)
    others = [subject for subject, value in ratings.items() if value != most]
    if not others:
        return f"all {most}"
    *first, last = others
    return f"{most} but " + (f"{', '.join(first)} and {last}" if first else last)


def draw(rng: random.Random, level: int) -> tuple[str, dict[str, Any]]:
    """A report; subjects are drawn without replacement, ratings with a bias to either side."""
    subjects, share = rng.sample(SUBJECTS, RATINGS[level]), rng.choice([0.3, 0.7])
    ratings = {subject: "good" if rng.random() < share else "bad" for subject in subjects}
    report = ", ".join(f"{subject} {value}" for subject, value in ratings.items())
    return report, {"prompt": f"{report}:", "reference": verdict(ratings)}


prompts = generated(draw, default_level=2)

TASKS = [
    Task(
        id="TextGenSummary-v0",
        summary="sum up a hotel's ratings in a line; paid for the right verdict and for likeness to it",
        description="""\
The prompt is a report on a hotel, "bed bad, food good, view good, pool good, staff bad:", and the completion its
verdict: what most of it is, and what is the exception, in the report's order, "good but bed and staff". It is the
smallest of summaries, with a reference and the metric of summaries, ROUGE-L, beside whether all of it is right. The
scorer needs rouge-score: `pip install "textgym[overlap]"`.

Level 1 has three ratings, level 2 five (the default), level 3 seven. A verdict of three exceptions has a comma in it:
"good but bed, pool and staff". One without any is "all good".""",
        reward="""\
The mean of two components: 1 if the completion is the verdict, no more and no less, else 0; and its ROUGE-L against
that verdict.""",
        reward_range=(0.0, 1.0),
        kwargs={
            "tokenizer": "tiny-tasks",
            "prompts": "summary",
            "scorer": {"name": "weighted_sum", "scorers": ["exact_match", "rouge"], "weights": [0.5, 0.5]},
            "max_prompt_tokens": 80,
            "max_new_tokens": 32,
        },
        model="tiny-tasks",
        see_also={"tasks with a right answer": "../tasks.md"},
    ),
]
