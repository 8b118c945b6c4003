"""The chat of `scripts/sample.py --chat`: lines of standard input in, replies out as they are written."""

from __future__ import annotations

import sys
from dataclasses import replace

from rich.console import Console

from scripts.policies import load
from scripts.sampling.texts import Args, chooser, refuse
from textgym.evaluation import Conversation, NoReward


def chat(args: Args, console: Console) -> None:
    """Talk until /quit, the end of the input or Ctrl-C.

    Raises:
        ValueError: an option that a chat does not know, or a tokenizer without a chat template.
    """
    unused = ("prompt", "as_chat", "jsonl", "target", "no_score", "best_of")
    refuse(args, unused, "--chat is a conversation without rewards")
    loaded = load(replace(args, scorer=None), 1, {"scorer": NoReward(), "num_generations": 1}, **args.warpers)
    conversation = Conversation(loaded.env, chooser(loaded.token_model, args.deterministic))
    try:
        while (line := read_line()) != "/quit":
            if line == "/new":
                conversation.messages = []
            elif line:
                answer(conversation, line, console)
    except (EOFError, KeyboardInterrupt):
        console.print()


def read_line() -> str:
    """The next line of standard input; a person is shown a prompt."""
    return input("> " if sys.stdin.isatty() else "").strip()


def answer(conversation: Conversation, line: str, console: Console) -> None:
    """Print the reply piece by piece. A message that does not fit is not sent, and says why."""
    try:
        for piece in conversation.reply(line):
            console.print(piece, end="", markup=False, soft_wrap=True)
        console.print()
    except ValueError as error:
        if not conversation.messages:
            raise
        console.print(f"not sent: {error}\n/new starts again", style="yellow", markup=False, soft_wrap=True)
