"""How hard a text is to read, by the formulas of textstat."""

from __future__ import annotations

from textgym.arguments import Finite, check_argument
from textgym.importing import did_you_mean, require
from textgym.scorers.base import Generations, Scorer
from textgym.scorers.reading import Of, texts_of

WITHOUT_DATA = ("automated_readability_index", "coleman_liau_index", "lix", "mcalpine_eflaw", "rix")
"""Formulas of letters, words and sentences."""

WITH_CMUDICT = (
    "dale_chall_readability_score",
    "flesch_kincaid_grade",
    "flesch_reading_ease",
    "gunning_fog",
    "linsear_write_formula",
    "smog_index",
    "spache_readability",
)
"""Formulas of syllables, which textstat looks up in the CMU dictionary of NLTK."""


class Readability(Scorer):
    """A readability formula's value of the completion, or how near it is to a wanted one.

    Most formulas give a US school grade, so a larger value is harder to read; `flesch_reading_ease` is larger where a
    text is easier, `lix` and `mcalpine_eflaw` have scales of their own. All are made for English prose of some
    sentences. On a few words they give anything: one long word has a grade in the hundreds, and "Good." has -22 of
    Coleman and Liau. So an agent that maximises a formula finds texts that nobody can read; `target` gives it something
    to aim at.

    Args:
        formula: a function of textstat's. Without any data work `automated_readability_index`, `coleman_liau_index`,
            `lix`, `mcalpine_eflaw` and `rix`. Those that count syllables need NLTK's `cmudict`, which is never
            downloaded here: `dale_chall_readability_score`, `flesch_kincaid_grade`, `flesch_reading_ease`,
            `gunning_fog`, `linsear_write_formula`, `smog_index` and `spache_readability`.
        target: the value wanted, in the formula's units: the score is then minus the distance to it. None pays the
            formula's value.
        of: `"completion"`, or `"text"` for prompt and completion.
        name: the component's name in `info`.

    Range: with a target, 0 and below; 0 is best. Without, the formula's, which has no bounds. A text without words has
        the formula's value 0.

    Cost: a few regular expressions, linear in the length.

    Source: the package textstat, for English. Its Coleman-Liau index has the coefficient 0.058 where the paper's is
        0.0588, so it is about 0.4 grades lower.

    Example: `{"name": "readability", "formula": "coleman_liau_index", "target": 6}`

    Raises:
        ImportError: textstat is missing.
        FileNotFoundError: the formula needs NLTK's cmudict, and it is not installed.
        ValueError: there is no such formula; another argument of another type.
    """

    def __init__(
        self,
        formula: str = "automated_readability_index",
        *,
        target: Finite | None = None,
        of: Of = "completion",
        name: str = "readability",
    ):
        check_argument(f"scorer {name!r}: formula", formula, str)
        check_argument(f"scorer {name!r}: target", target, Finite | None)
        check_argument(f"scorer {name!r}: of", of, Of)
        known = [*WITHOUT_DATA, *WITH_CMUDICT]
        if formula not in known:
            raise ValueError(
                f"scorer {name!r}: formula is {formula!r}; accepted are {known}{did_you_mean(formula, known)}"
            )
        require("textstat", "text")
        from textstat.textstat import textstatistics

        if formula in WITH_CMUDICT:
            _require_cmudict(name, formula)
        self.name, self.target, self.of = name, target, of
        self._formula = getattr(textstatistics(), formula)  # an object of its own: the package's has a language to set

    def score(self, generations: Generations) -> list[float]:
        """(n,) values."""
        values = [float(self._formula(text)) for text in texts_of(generations, self.of)]
        return values if self.target is None else [-abs(value - self.target) for value in values]


def _require_cmudict(name: str, formula: str) -> None:
    """The dictionary must be there: textstat would try to download it, for each text anew."""
    import nltk

    try:
        nltk.data.find("corpora/cmudict")
    except LookupError:
        raise FileNotFoundError(
            f"scorer {name!r}: the formula {formula!r} counts syllables and needs NLTK's cmudict, which is not "
            f"installed: python -m nltk.downloader cmudict; without it work {list(WITHOUT_DATA)}"
        ) from None
