"""Sums, written character by character: question answering with one right answer."""

from __future__ import annotations

import random
from typing import Any

from textgym.generated_prompts import generated
from textgym.tasks.base import Task, tiny_task_ids

RANGES = {1: ((1, 99), (1, 9)), 2: ((10, 99), (10, 99)), 3: ((100, 999), (100, 999))}
"""Level -> the least and the largest of both numbers."""


def draw(rng: random.Random, level: int) -> tuple[str, dict[str, Any]]:
    """A sum; its key leaves the order of the numbers open, as the answer does."""
    numbers = [rng.randint(*bounds) for bounds in RANGES[level]]
    rng.shuffle(numbers)
    a, b = numbers
    return f"{min(a, b)}+{max(a, b)}", {"prompt": f"{a}+{b}=", "reference": str(a + b)}


prompts = generated(draw, default_level=2)

TASKS = [
    Task(
        id="TextGenArithmetic-v0",
        summary="add two numbers; paid for the right sum",
        description="""\
The prompt is a sum such as "37+58=", the completion its value, digit by digit: reinforcement learning with verifiable
rewards at its smallest. The embedded model knows the answer to a part of the sums, and often finds it among 64 tries
where it does not, so there is something to sharpen and something to lose. Only digits and end-of-text are allowed, at
most four of them, so every completion of a prompt can be enumerated: 11,111 outcomes.

Level 1 adds a number of one digit to one of one or two digits, level 2 two numbers of two digits (the default), level 3
two of three digits.""",
        reward="1 if the completion is the sum in digits, no more and no less; else 0.",
        reward_range=(0.0, 1.0),
        kwargs={
            "tokenizer": "tiny-tasks",
            "prompts": "arithmetic",
            "scorer": "exact_match",
            "max_prompt_tokens": 8,
            "max_new_tokens": 4,
            "allowed_tokens": tiny_task_ids("0123456789"),
        },
        model="tiny-tasks",
        see_also={"tasks with a right answer": "../tasks.md"},
    ),
]
