"""Guessing a number: a conversation of several turns with a partner who knows it."""

from __future__ import annotations

from typing import Any, Literal

from textgym.tasks.base import TINY_TASKS_ALPHABET, Task, tiny_task_ids

GAMES = {1: (3, 2), 2: (7, 3), 3: (9, 3)}
"""Level -> the largest number, and the turns."""


def prompts(level: Literal[1, 2, 3] = 2) -> list[dict[str, Any]]:
    """One prompt for each secret; they read the same.

    Args:
        level: how hard they are.
    """
    largest, turns = GAMES[level]
    words = f"1-{largest} in {turns}:"
    return [{"prompt": words, "secret": secret, "turns": turns} for secret in range(1, largest + 1)]


TASKS = [
    Task(
        id="TextGenGuess-v0",
        summary="guess a number in a few turns; a partner says whether it is more or less",
        description="""\
A conversation. The policy writes a number and a comma, which ends its turn, as does a second digit; the partner, who
knows the secret, answers "more " or "less ", and so on: "4,more 6,less 5,". The partner's tokens stand in the
observation and are no actions. The secret is a column of the prompt, which the policy does not see. The digits 1 to 9
and the comma are allowed.

At level 1 the number is one of 1 to 3, and there are two turns; at level 2 one of 1 to 7, and three (the default); at
level 3 one of 1 to 9, and three. Binary search is the best policy, and what it earns is known exactly
(`textgym.guessing.best_return`): at level 2 it always finds the number, with a return of 6/7 on average; at level 3 it
finds 7 of 9, 0.6 on average. What is no number is answered "what ", and costs the turn.""",
        reward="""\
1 for the right guess, -0.1 for every other, each with the token that ends its turn.""",
        reward_range=(-0.3, 1.0),
        kwargs={
            "tokenizer": "tiny-tasks",
            "prompts": "guess",
            "scorer": "textgym.guessing:Guessed",
            "partner": "textgym.guessing:answer",
            "max_prompt_tokens": 12,
            "max_new_tokens": 24,
            "eot_token_ids": [TINY_TASKS_ALPHABET.index(",")],
            "max_turn_tokens": 2,
            "allowed_tokens": tiny_task_ids("123456789,")[:-1],
        },
        model="tiny-tasks",
        see_also={"episodes of several turns": "../turns.md"},
    ),
]
