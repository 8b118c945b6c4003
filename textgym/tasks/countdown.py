"""Countdown: expressions that reach a target, code whose result is checked."""

from __future__ import annotations

import random
from functools import cache
from itertools import combinations, permutations, product
from typing import Any

from textgym.expressions import value_of
from textgym.generated_prompts import generated
from textgym.tasks.base import Task, tiny_task_ids

GIVEN, NEEDED = {1: 3, 2: 3, 3: 4}, {1: 2, 2: 3, 3: 3}
"""Level -> how many numbers are given, and how many of them an expression needs."""
LARGEST_TARGET = 99


@cache
def expressions(numbers: tuple[int, ...]) -> dict[int, set[str]]:
    """All expressions without brackets that use each of the numbers once, by their values."""
    found: dict[int, set[str]] = {}
    for order in permutations(numbers):
        for operators in product("+-*/", repeat=len(numbers) - 1):
            text = str(order[0]) + "".join(f"{sign}{number}" for sign, number in zip(operators, order[1:], strict=True))
            value = value_of(text, numbers)
            if value is not None and 0 < value <= LARGEST_TARGET:
                found.setdefault(value, set()).add(text)
    return found


@cache
def targets(given: tuple[int, ...], level: int) -> dict[int, list[str]]:
    """The targets of a level for some numbers, with every expression of at most three of these that makes them."""
    made: dict[int, dict[int, set[str]]] = {count: {} for count in (1, 2, 3)}
    for count, of_count in made.items():
        for numbers in combinations(given, count):
            for value, texts in expressions(numbers).items():
                of_count.setdefault(value, set()).update(texts)
    needed = NEEDED[level]
    possible = [value for value in sorted(made[needed]) if not any(value in made[count] for count in range(1, needed))]
    return {value: sorted(set().union(*(of_count.get(value, ()) for of_count in made.values()))) for value in possible}


def draw(rng: random.Random, level: int) -> tuple[str, dict[str, Any]]:
    """Numbers in ascending order and a target that they can reach."""
    possible: dict[int, list[str]] = {}
    while not possible:
        given = tuple(sorted(rng.randint(1, 9) for _ in range(GIVEN[level])))
        possible = targets(given, level)
    target = rng.choice(list(possible))
    prompt = f"{' '.join(map(str, given))} make {target}:"
    return prompt, {"prompt": prompt, "numbers": [*given], "target": target, "reference": possible[target]}


prompts = generated(draw, default_level=2)

TASKS = [
    Task(
        id="TextGenCountdown-v0",
        summary="write an expression over given numbers that makes a target; paid if it does",
        description="""\
The prompt gives numbers and a target, "4 7 9 make 37:", and the completion is an expression that uses each number at
most once and has the target as its value, "4*7+9": the smallest of programs, checked by what it computes and not by how
it reads. There is often more than one, so a policy can be right and still varied. The digits 1 to 9, the four operators
and end-of-text are allowed, at most five of them.

At level 1 two of three numbers make the target, at level 2 all three are needed (the default), at level 3 three of
four. Numbers are from 1 to 9, targets from 1 to 99, and no target needs brackets. The column `reference` has all
expressions that are right and fit into five characters.""",
        reward="""\
1 if the completion is an expression with the value of the target that uses each given number at most once, else 0. It
is read by a grammar of numbers, the four operators, brackets and spaces, and is never executed. A division that leaves
a remainder makes it wrong.""",
        reward_range=(0.0, 1.0),
        kwargs={
            "tokenizer": "tiny-tasks",
            "prompts": "countdown",
            "scorer": "countdown",
            "max_prompt_tokens": 16,
            "max_new_tokens": 5,
            "allowed_tokens": tiny_task_ids("123456789+-*/"),
        },
        model="tiny-tasks",
        see_also={"tasks with a right answer": "../tasks.md"},
    ),
]
