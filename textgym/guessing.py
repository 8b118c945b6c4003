"""A game of guessing a number: the partner, who says whether it is more or less, the score, and the best return.

A conversation reads "4,more 6,less 5,": the policy's guesses end with a comma, the partner's answers with a space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from textgym.arguments import NonNegative, check_argument
from textgym.scorers.base import Scorer
from textgym.scorers.generations import Generations

ANSWERS = {True: "more ", False: "less "}
"""By whether the secret is more than the guess."""
NO_GUESS = "what "
"""The answer to what is no number."""
LAST_GUESS = re.compile(rf"(?:^| )(\w*?),?(?:{'|'.join([*ANSWERS.values(), NO_GUESS])})?$")


def answer(columns: Mapping[str, Any], turns: Sequence[str]) -> str | None:
    """The partner: "more " or "less ", as the secret is; None when it was guessed, or with the last of the turns.

    Args:
        columns: `secret`, the number to be guessed, and `turns`, how many guesses there are.
        turns: see `Partner`.

    Raises:
        ValueError: a column is missing, or no integer.
    """
    for name in ("secret", "turns"):
        check_argument(f"the game's column {name!r}", columns.get(name), int)
    guess = turns[-1]
    if guess == str(columns["secret"]) or (len(turns) + 1) // 2 == columns["turns"]:
        return None
    return ANSWERS[columns["secret"] > int(guess)] if guess.isdecimal() else NO_GUESS


class Guessed(Scorer):
    """Pays for guesses, each with the token that ends its turn: 1 for the right one, minus a cost for any other.

    Args:
        cost: of a wrong guess.
        name: the component's name in `info`.

    Raises:
        ValueError: a cost below 0; when asked, prompts without a column `secret`.
    """

    per_token = True

    def __init__(self, cost: NonNegative = 0.1, *, name: str = "guessed"):
        check_argument(f"scorer {name!r}: cost", cost, NonNegative)
        self.cost, self.name = float(cost), name

    def score(self, generations: Generations) -> list[float]:
        """(n,) 1.0, -cost, or 0.0 within a turn."""
        if "secret" not in (columns := generations.columns):
            raise ValueError(f"scorer {self.name!r} reads the column 'secret'; the prompts have {sorted(columns)}")
        rows = zip(generations.completions, columns["secret"], generations.ended, strict=True)
        return [self._one(text, str(secret), ended) for text, secret, ended in rows]

    def _one(self, text: str, secret: str, ended: bool) -> float:
        if not ended and text[-1:].isalnum():
            return 0.0  # within a turn: a comma or a partner's space is what ends one
        guess = LAST_GUESS.search(text)
        return 1.0 if guess is not None and guess[1] == secret else -self.cost


@cache
def best_return(numbers: int, turns: int, cost: float = 0.0) -> float:
    """The most that a policy can expect, by dynamic programming over how many numbers are left.

    With n equally likely numbers and k turns left, V(n, k) = max_i [1 - (n - 1) cost + (i - 1) V(i - 1, k - 1) +
    (n - i) V(n - i, k - 1)] / n, where i is the rank of the guess; V(0, k) = V(n, 0) = 0. Without a cost it is the
    probability of guessing the number, min(1, (2^k - 1) / n), as k turns tell 2^k - 1 numbers apart.

    Args:
        numbers: n.
        turns: k.
        cost: of a wrong guess.
    """
    if not numbers or not turns:
        return 0.0
    splits = ((i, numbers - 1 - i) for i in range(numbers))  # how many are less than the guess, and how many more
    later = max(sum(n * best_return(n, turns - 1, cost) for n in split) for split in splits)
    return (1 - (numbers - 1) * cost + later) / numbers
