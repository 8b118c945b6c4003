"""Small functions of Python to complete: their source text is to compile. Nothing is executed."""

from __future__ import annotations

import json
from pathlib import Path

from textgym.splits import Split, in_split
from textgym.tasks.base import Task

FUNCTIONS = Path(__file__).parent.parent / "assets" / "functions.jsonl"


def prompts(split: Split = "train") -> list[str]:
    """Signatures of functions with their docstrings.

    Args:
        split: the part for training, or the one for tests.
    """
    texts = [json.loads(line)["prompt"] for line in FUNCTIONS.read_text(encoding="utf-8").splitlines()]
    return [text for text in texts if in_split(text, split)]


TASKS = [
    Task(
        id="TextGenPythonSmolLM2-v0",
        summary="complete a small function of Python; paid if it compiles, and for its length",
        description="""\
SmolLM2-135M completes a function of Python from its signature and a docstring, such as "Return the sum of a and b.".
It is paid if all of it compiles, and for a length near that of a short body; nothing is ever executed, so whether it
does what the docstring says is not asked. A text that is cut off in the middle of a line seldom compiles, so ending
in time is the first lesson. 132 functions are for training, 33 for tests (`split="test"`).""",
        reward="""\
1 if prompt and completion are source text that Python compiles, else 0; less half the distance of the completion's
length to 24 tokens, over 24.""",
        reward_range=(-0.5, 1.0),
        kwargs={
            "tokenizer": "smollm2-q4",
            "prompts": "functions",
            "scorer": {
                "name": "weighted_sum",
                "scorers": ["compiles", {"name": "length", "target": 24}],
                "weights": [1.0, 0.5],
            },
            "max_prompt_tokens": 32,
            "max_new_tokens": 48,
        },
        model="smollm2-q4",
    ),
]
