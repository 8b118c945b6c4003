"""The evaluations of one training, one after the other: which was best, how long ago, and what looks like collapse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textgym.evaluation.evaluation import Evaluation
from textgym.files import whole_file

STEP = "num_timesteps"
SINGLE = tuple("reward kl_to_reference entropy length eos_share distinct_1 distinct_2 distinct_3 self_bleu".split())
SEVERAL = {"components": "scorer/", "other_components": "scorer/", "metrics": "scorer/", "pass_at": "pass@"}
COLLAPSE = {"entropy": (0.2, 5.0), "distinct_2": (0.5, 2.0), "length": (0.5, 2.0)}
"""How many times its first value a number may become before a warning names it."""


def numbers(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation by name, from its JSON form (`Evaluation.to_json`); unknown ones are left out.

    Scorer components and what reward functions report are `scorer/NAME`, success in k tries is `pass@k`.
    """
    named = {name: evaluation[name] for name in SINGLE}
    for field, prefix in SEVERAL.items():
        named |= {f"{prefix}{name}": value for name, value in evaluation[field].items()}
    values = {name: value["value"] if isinstance(value, Mapping) else value for name, value in named.items()}
    return {name: value for name, value in values.items() if value is not None}


class EvaluationHistory:
    """Evaluations by the tokens of training before them, in a file of JSON lines.

    Attributes:
        rows: the JSON form of each evaluation, with `num_timesteps`.

    Args:
        path: the file, which may be there.
        num_timesteps: a training begins or goes on here, so that rows from here on are taken back.

    Raises:
        ValueError: the file is there, and is not what was written; it names the line.
    """

    def __init__(self, path: Path, num_timesteps: int = 0):
        self.path = path
        self.rows = [row for row in self._read() if row[STEP] < num_timesteps]
        self._write()

    def add(self, evaluation: Evaluation, num_timesteps: int) -> None:
        """Keep an evaluation, in the file too."""
        self.rows.append({STEP: num_timesteps} | evaluation.to_json())
        self._write()

    def values(self, name: str) -> list[float]:
        """One number of every evaluation, the oldest first.

        Raises:
            ValueError: an evaluation does not have it.
        """
        found = [numbers(row) for row in self.rows]
        for row in found:
            if name not in row:
                raise ValueError(f"there is no number {name!r} in the evaluation; it has {sorted(row)}")
        return [row[name] for row in found]

    def since_best(self, name: str) -> int:
        """How many evaluations came after the best; 0 where the last is better than all before it."""
        values = self.values(name)
        return len(values) - 1 - values.index(max(values))

    def collapse(self) -> list[str]:
        """A sentence for each number of the last evaluation that is far from what it was in the first."""
        first, last = numbers(self.rows[0]), numbers(self.rows[-1])
        return [
            f"{name} is {last[name]:.3g}, {last[name] / first[name]:.2f} times what it was in the first evaluation"
            for name, (low, high) in COLLAPSE.items()
            if first.get(name) and name in last and not low <= last[name] / first[name] <= high
        ]

    def _read(self) -> list[dict[str, Any]]:
        """The rows, without a last one that was cut."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        rows = []
        for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
            try:
                row = json.loads(line)
                numbers(row), row[STEP] + 0
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{str(self.path)!r}, line {number}, is no evaluation: {error!r}") from error
            rows.append(row)
        return rows

    def _write(self) -> None:
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        with whole_file(self.path) as new:
            new.write_text(lines, encoding="utf-8")
