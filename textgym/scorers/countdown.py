"""The scorer of Countdown: whether an expression over given numbers makes a target."""

from __future__ import annotations

from textgym.arguments import accepts, check_argument
from textgym.expressions import value_of
from textgym.scorers.base import Generations, Scorer


class Countdown(Scorer):
    """1.0 if the completion is an expression that makes the target out of the given numbers, else 0.0.

    Each number may be used at most once, and one that is given twice, twice. The grammar is that of
    `textgym.expressions`: numbers, `+ - * /`, brackets and spaces. Nothing is executed. A division that leaves a
    remainder makes the expression wrong, as in the game.

    Args:
        numbers: the prompts' column with the given numbers, a list of integers of at least 0.
        target: the prompts' column with the target, an integer.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: reading the completion, linear in its length.

    Source: the numbers round of the television game; the rules are those of TinyZero (Pan et al. 2025), but for the
        remainder.

    Example: `{"name": "countdown"}`

    Raises:
        ValueError: an argument of another type; when asked, prompts without these columns, or with other values there.
    """

    def __init__(self, numbers: str = "numbers", target: str = "target", *, name: str = "countdown"):
        check_argument(f"scorer {name!r}: numbers", numbers, str)
        check_argument(f"scorer {name!r}: target", target, str)
        self.name = name
        self.numbers, self.target = numbers, target

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        columns = generations.columns
        if missing := [column for column in (self.numbers, self.target) if column not in columns]:
            raise ValueError(
                f"scorer {self.name!r} reads the column {missing[0]!r}, which the prompts do not have; theirs are "
                f"{sorted(columns)}"
            )
        rows = zip(generations.completions, columns[self.numbers], columns[self.target], strict=True)
        return [self._one(text, numbers, target) for text, numbers, target in rows]

    def _one(self, text: str, numbers: object, target: object) -> float:
        if not isinstance(numbers, list) or not all(accepts(int, n) and n >= 0 for n in numbers):
            raise ValueError(
                f"scorer {self.name!r}: the column {self.numbers!r} has {numbers!r}; it must be a list of integers of "
                "at least 0"
            )
        check_argument(f"scorer {self.name!r}: the column {self.target!r}", target, int)
        return float(value_of(text, numbers) == target)
