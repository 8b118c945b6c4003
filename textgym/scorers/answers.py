"""Scorers of right answers: the completion is a reference, or its number is a reference's number."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Literal

from textgym.arguments import NonNegative, check_argument
from textgym.scorers.base import Generations, Scorer
from textgym.scorers.references import references_of

_NUMBER = re.compile(
    r"""(?=[-+−.\d]) (?P<sign>(?<![\w)\]}])[-+−])?
        (?: (?<![\d./]) (?P<over>\d++)/(?P<under>0*[1-9]\d*+) (?!/|\.\d|,\d{3}(?!\d))          # 3/4
          | (?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d++)?+ | \d++(?:\.\d++)?+ | (?<!\d)\.\d++)  # 1,234.5 or 12.5 or .5
            (?:[eE](?P<exponent>[-+−]?\d++)(?!\w))? )""",
    re.VERBOSE,
)
MOST_DIGITS, LARGEST_EXPONENT = 1000, 1000


class ExactMatch(Scorer):
    """1.0 if the completion is one of the references, else 0.0.

    White space around both is left out, and what Unicode calls canonically equivalent is equal: "é" is "e" with a
    combining accent. All else counts: "4." is not "4".

    Args:
        column: the prompts' column with the reference, a text or a list of texts any of which is right.
        case_sensitive: whether "Yes" and "yes" differ.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: one comparison of strings per reference.

    Source: `exact_match` of Hugging Face `evaluate`; TRL's `accuracy_reward` compares formulas instead.

    Example: `{"name": "exact_match"}`

    Raises:
        ValueError: a column that is no text; `case_sensitive` is neither True nor False; when asked, prompts without
            that column, or a value of another type in it.
    """

    def __init__(self, column: str = "reference", *, case_sensitive: bool = True, name: str = "exact_match"):
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: case_sensitive", case_sensitive, bool)
        self.name, self.column, self.case_sensitive = name, column, case_sensitive

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        pairs = zip(generations.completions, references_of(generations, self.column), strict=True)
        return [float(self._form(text) in map(self._form, references)) for text, references in pairs]

    def _form(self, text: str) -> str:
        form = unicodedata.normalize("NFD", text.strip())  # canonical order, in which folding the case is defined
        return form if self.case_sensitive else unicodedata.normalize("NFD", form.casefold())


class NumericMatch(Scorer):
    """1.0 if a number in the completion is the number of one of the references, else 0.0.

    Numbers are compared exactly, as fractions, so 0.75, 3/4 and 7.5e-1 are the same. Read as one number are digits with
    a decimal point ("3.14", ".5"), with commas between groups of three ("1,234.5"), with an exponent ("1e-3"), and two
    whole numbers with a stroke between ("3/4"). A sign counts where it stands directly before the number and after no
    letter, digit or closing bracket: "-3" and "x = -3" are minus three, "5-3" is 5 and 3. So "1,23" is 1 and 23,
    "1 3/4" is 1 and 3/4, and "50%" is 50. Digits of any script are digits. What has more than 1,000 digits, or an
    exponent beyond 1,000, matches nothing.

    Args:
        column: the prompts' column with the reference, a text or a list of texts any of which is right; what counts of
            each is its last number.
        which: which number of the completion is its answer: the `"last"`, the `"first"`, or the `"only"` one, which is
            none where there are several.
        tolerance: how far the answer may be from the reference's number, inclusive and absolute.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: one pass of a regular expression over the completion and each reference.

    Source: the last number as the answer is the convention of GSM8K (Cobbe et al. 2021, arXiv 2110.14168).

    Example: `{"name": "numeric_match", "tolerance": 0.01}`

    Raises:
        ValueError: an argument of another type or range; when asked, prompts without that column, or a value in it that
            is no text with a number.
    """

    def __init__(
        self,
        column: str = "reference",
        *,
        which: Literal["last", "first", "only"] = "last",
        tolerance: NonNegative = 0.0,
        name: str = "numeric_match",
    ):
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: which", which, Literal["last", "first", "only"])
        check_argument(f"scorer {name!r}: tolerance", tolerance, NonNegative)
        self.name, self.column, self.which, self.tolerance = name, column, which, tolerance
        self._tolerance = Fraction(str(float(tolerance)))  # the decimal as it was written, not the nearest float

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        pairs = zip(generations.completions, references_of(generations, self.column), strict=True)
        return [float(self._is_right(text, references)) for text, references in pairs]

    def _is_right(self, text: str, references: list[str]) -> bool:
        wanted = [self._wanted(reference) for reference in references]
        answer = _chosen(numbers_in(text), self.which)
        return answer is not None and any(abs(answer - number) <= self._tolerance for number in wanted)

    def _wanted(self, reference: str) -> Fraction:
        number = _chosen(numbers_in(reference), "last")
        if number is None:
            raise ValueError(f"the reference {reference!r} (column {self.column!r}) has no number that can be read")
        return number


def numbers_in(text: str) -> list[Fraction | None]:
    """The numbers in a text, from left to right, as `NumericMatch` reads them; None for one that is too long."""
    return [_value(match) for match in _NUMBER.finditer(text)]


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > MOST_DIGITS:
        return None
    if match["over"]:
        size = Fraction(int(match["over"]), int(match["under"]))
    else:
        exponent = int((match["exponent"] or "0").replace("−", "-"))
        if abs(exponent) > LARGEST_EXPONENT:
            return None
        size = Fraction(match["digits"].replace(",", "")) * Fraction(10) ** exponent
    return -size if match["sign"] in ("-", "−") else size


def _chosen(numbers: list[Fraction | None], which: str) -> Fraction | None:
    if not numbers or (which == "only" and len(numbers) > 1):
        return None
    return numbers[0 if which == "first" else -1]
