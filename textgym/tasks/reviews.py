"""Movie reviews that are to end well: the default task."""

from __future__ import annotations

from pathlib import Path

from textgym.splits import Split, in_split
from textgym.tasks.base import Task

OPENINGS = Path(__file__).parent.parent / "assets" / "reviews.txt"


def prompts(split: Split | None = None) -> list[str]:
    """The openings of movie reviews.

    Args:
        split: None for all of them, which training and evaluation then share; `"train"` and `"test"` for two parts.
    """
    openings = OPENINGS.read_text(encoding="utf-8").splitlines()
    return openings if split is None else [text for text in openings if in_split(text, split)]


TASKS = [
    Task(
        id="TextGen-v0",
        summary="continue the opening of a movie review; paid for positive sentiment",
        description="""\
The embedded model's own kind of text: the prompt is the opening of a movie review, and the completion goes on with
it. The reward is the sentiment of the whole. The untrained model earns a little more than 0; nearly 1 can be
reached, at the price of texts that are more alike and further from the model's. It runs offline, on a CPU, and
without torch.""",
        reward="""\
VADER's compound score of prompt and completion together. Above 0.05 a text usually counts as positive, below -0.05
as negative; a text without any word of sentiment gives 0.""",
        reward_range=(-1.0, 1.0),
        see_also={"what agents reach on it, side by side": "../compare.md"},
    ),
]
