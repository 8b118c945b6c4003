"""Number words to digits: translation, with a reference."""

from __future__ import annotations

import random
from typing import Any

from textgym.generated_prompts import generated
from textgym.tasks.base import Task, tiny_task_ids

UNDER_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(number: int, joint: str = " ") -> str:
    """An English numeral below 10,000; `joint` stands between the hundreds and what is less."""
    for size, unit in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            between = " " if rest >= 100 else joint
            return f"{in_words(number // size)} {unit}" + (between + in_words(rest, joint) if rest else "")
    if number < 20:
        return UNDER_TWENTY[number]
    return TENS[number // 10 - 2] + (f" {UNDER_TWENTY[number % 10]}" if number % 10 else "")


def in_hundreds(number: int, joint: str) -> str:
    """A numeral counted in hundreds: 4207 is "forty two hundred seven"; of a multiple of 1000, the usual one."""
    hundreds, rest = divmod(number, 100)
    if not hundreds % 10:
        return in_words(number, joint)
    return f"{in_words(hundreds)} hundred" + (joint + in_words(rest) if rest else "")


def draw(rng: random.Random, level: int) -> tuple[str, dict[str, Any]]:
    """A numeral; its key is the number, however it is said."""
    number = rng.randrange(1000) if level == 1 else rng.randrange(1000, 10_000)
    words = in_words(number)
    if level == 3:
        say = rng.choice([in_words, in_hundreds])
        words = say(number, rng.choice([" ", " and "]))
    return str(number), {"prompt": f"{words}:", "reference": str(number)}


prompts = generated(draw, default_level=2)

TASKS = [
    Task(
        id="TextGenNumerals-v0",
        summary="translate a numeral from words into digits; paid for the right number and for likeness to it",
        description="""\
The prompt is a numeral in words, "seven thousand three hundred forty two:", and the completion the same number in
digits. It is the smallest of translations, with a reference and a metric of translations, chrF, beside whether all of
it is right. Only digits and end-of-text are allowed, at most four of them, so every completion of a prompt can be
enumerated: 11,111 outcomes. The scorer needs sacrebleu: `pip install "textgym[overlap]"`.

Level 1 has the numbers below 1000, level 2 those of four digits (the default); level 3 says them in several ways, in
hundreds ("seventy three hundred and forty two") or thousands, with or without "and".""",
        reward="""\
The mean of two components: 1 if the completion is the number in digits, no more and no less, else 0; and its chrF
against that number.""",
        reward_range=(0.0, 1.0),
        kwargs={
            "tokenizer": "tiny-tasks",
            "prompts": "numerals",
            "scorer": {"name": "weighted_sum", "scorers": ["exact_match", "chrf"], "weights": [0.5, 0.5]},
            "max_prompt_tokens": 48,
            "max_new_tokens": 4,
            "allowed_tokens": tiny_task_ids("0123456789"),
        },
        model="tiny-tasks",
        see_also={"tasks with a right answer": "../tasks.md"},
    ),
]
