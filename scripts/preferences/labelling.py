"""The screen and the keys of `scripts/label.py`, and where its pairs come from."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.policies import ModelArgs, load
from scripts.preferences.labels import Journal, Pair
from scripts.sampling.texts import chooser
from textgym.arguments import Count, NonNegative
from textgym.evaluation import NoReward, play
from textgym.preferences import read_preferences

KEYS = {"1": "the left one is better", "2": "the right one", "0": "a tie", "s": "skip", "u": "undo", "q": "quit"}
ROUNDS = 100
"""Rounds of sampling in which enough different pairs must come up."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:[\[O][0-9;]*[~A-Za-z])?")


@dataclass
class Args(ModelArgs):
    """What to judge, and who does."""

    source: Path | None = None
    """A file of preferences whose pairs are judged anew, in place of two samples of the model for each prompt."""
    pairs: Count = 50
    """How many pairs are sampled."""
    rater: str = "me"
    """Who judges: letters, digits and underscores. Each rater has a journal, and sees pairs on sides of their own."""
    out: Path = Path("labels")
    """Folder of the pairs, the journals and `preferences.jsonl`; repeat the command to go on."""
    synthetic: NonNegative | None = None
    """Nobody is asked: a rater that is made up judges by VADER's score, in [-1, 1], with this noise."""


def pairs_to_judge(args: Args) -> list[Pair]:
    """The pairs of the file, or samples of the model: two different texts for each prompt.

    Raises:
        ValueError: the file holds no preferences, or the model hardly ever writes two different texts.
    """
    if args.source is not None:
        return [Pair(row.prompt, row.chosen, row.rejected) for row in read_preferences(args.source)]
    rows = 2 * min(args.pairs, 64)
    loaded = load(replace(args, scorer=None), rows, {"num_generations": 2, "scorer": NoReward()})
    choose, found = chooser(loaded.token_model, deterministic=False), dict[Pair, None]()
    for number in range(ROUNDS):
        texts = play(loaded.env, choose, args.seed if number == 0 else None)
        for one, other in zip(texts[::2], texts[1::2], strict=True):
            if one.completion != other.completion and one.completion.strip() and other.completion.strip():
                found[Pair(one.prompt, one.completion, other.completion)] = None
        if len(found) >= args.pairs:
            return list(found)[: args.pairs]
    raise ValueError(
        f"--pairs is {args.pairs}, but {ROUNDS * rows // 2} times two samples brought only {len(found)} different pairs"
    )


def is_swapped(rater: str, number: int) -> bool:
    """Whether a rater sees a pair's second text on the left: a coin for each rater and pair, so no side is favoured."""
    return hashlib.sha256(f"{rater} {number}".encode()).digest()[0] % 2 == 1


def label(pairs: list[Pair], journal: Journal, rater: str, press: Callable[[], str], console: Console) -> None:
    """Ask for the pairs that have no verdict yet, until there are none, or `q` or the end of the keys.

    Args:
        pairs: to be judged.
        journal: of the rater.
        rater: the name.
        press: waits for a key and returns it; "" at the end.
        console: where the pairs are shown.
    """
    while (number := next((n for n in range(len(pairs)) if n not in journal.verdicts), None)) is not None:
        pair, swapped = pairs[number], is_swapped(rater, number)
        sides = (pair.second, pair.first) if swapped else (pair.first, pair.second)
        console.clear()
        console.print(screen(f"{len(journal.verdicts) + 1} of {len(pairs)}, {rater}", pair.prompt, *sides))
        key = press()
        if key in ("", "q"):
            return
        if key == "u":
            journal.undo()
        elif key in "12":
            journal.append(number, "second" if (key == "2") != swapped else "first")
        elif key in "0s":
            journal.append(number, "tie" if key == "0" else "skip")


def screen(title: str, prompt: str, left: str, right: str) -> Group:
    """Two texts side by side, with the prompt above and the keys below."""
    sides = Table.grid(expand=True)
    for _ in range(2):
        sides.add_column(ratio=1)
    sides.add_row(*(Panel(Text(text), title=key) for key, text in (("1", left), ("2", right))))
    keys = "   ".join(f"{key} {meaning}" for key, meaning in KEYS.items())
    return Group(Text(title, style="dim"), Text(prompt, style="bold"), sides, Text(keys, style="dim"))


@contextmanager
def key_presses() -> Iterator[Callable[[], str]]:
    """A function that waits for one key of the terminal, which need not be followed by Enter.

    Where standard input is no terminal, its characters are the keys, and "" stands for its end.
    """
    if not sys.stdin.isatty():
        yield lambda: sys.stdin.read(1)
        return
    import termios
    import tty

    descriptor, waiting = sys.stdin.fileno(), deque[str]()

    def press() -> str:
        while not waiting:
            # an arrow or function key sends several characters, of which a digit must not count as a key
            waiting.extend(ESCAPE_SEQUENCE.sub("", os.read(descriptor, 64).decode(errors="ignore")))
        return waiting.popleft()

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield press
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
