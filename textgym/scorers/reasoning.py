"""The scorer that goes with the prompts of reasoning-gym."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

from textgym.arguments import check_argument
from textgym.importing import require
from textgym.reasoning import COLUMN, dataset_of
from textgym.scorers.base import Generations, Scorer
from textgym.scorers.evaluated import EVALUATED
from textgym.scorers.extraction import Extraction


class ReasoningGym(Scorer):
    r"""What the dataset's own `score_answer` pays for the answer in the completion.

    The prompts are those of the prompt source `"reasoning_gym"`: the entry that is scored stands beside each of them.

    `score_answer` is rarely binary. By default a dataset pays 1 for the answer itself and, for a text that contains it,
    the answer's length over the text's, so that "The answer is 100" earns 0.18 where the answer is 100. Others pay for
    parts that are right, or a little for any answer that can be read. `binary=True` pays 1 for what earns at least 1,
    and 0 for all else.

    No answer is executed. Where a dataset evaluates answers as Python, one that is more than numbers, names, lists and
    arithmetic of moderate size counts as none. So does an answer at which `score_answer` raises an error.

    Args:
        extract: where in the completion the answer stands: `"strip"` (all of it, without the white space around),
            `"all"` (all of it as it is), `"think"` (after the last "</think>"), `"####"` (after it, on its line),
            `"boxed"` (in the last \boxed{...}), or a regular expression with one group, of its last match. Where there
            is none of it there is no answer.
        binary: whether only right answers are paid.
        name: the component's name in `info`.

    Range: [0, 1]; 1 is best. No answer earns 0, or the 0.01 that some datasets pay for anything.

    Cost: the dataset's; mostly a comparison. Those about integrals simplify formulas, in up to seconds.

    Source: reasoning-gym, `ProceduralDataset.score_answer` (Stojanovski et al. 2025, arXiv 2505.24760).

    Example: `{"name": "reasoning_gym", "extract": "boxed", "binary": true}`

    Raises:
        ValueError: `extract` is nothing of these; `binary` is neither True nor False; when asked, prompts of another
            source.
        ImportError: reasoning-gym is not installed.
    """

    def __init__(self, *, extract: str = "strip", binary: bool = False, name: str = "reasoning_gym"):
        check_argument(f"scorer {name!r}: binary", binary, bool)
        self.name, self.binary = name, binary
        self.answer_in = Extraction(extract, f"scorer {name!r}: extract")
        require("reasoning_gym", "reasoning")

    def score(self, generations: Generations) -> list[float]:
        """(n,) what the datasets pay."""
        entries = generations.columns.get(COLUMN, [None] * len(generations))
        if not all(isinstance(entry, Mapping) and {"dataset", "entry"} <= set(entry) for entry in entries):
            raise ValueError(
                f"the prompts bring no entries of reasoning-gym in a column {COLUMN!r}; take them from the prompt "
                'source of that name, as in prompts="reasoning_gym:leg_counting"'
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of numpy and of Python about answers that cannot be read
            return [self._value(*pair) for pair in zip(generations.completions, entries, strict=True)]

    def _value(self, completion: str, column: Mapping[str, Any]) -> float:
        answer, entry = self.answer_in(completion), column["entry"]
        may_go = EVALUATED.get(entry["metadata"]["source_dataset"])
        if answer is not None and may_go is not None and not may_go(answer):
            answer = None
        dataset = dataset_of(column["dataset"])
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                value = float(dataset.score_answer(answer, entry))
        except Exception:  # whatever parsers raise at a text that is none of theirs
            return 0.0
        return float(value >= 1.0) if self.binary else value
