"""Scorers of overlap with references: BLEU and chrF by sacrebleu, ROUGE by rouge-score."""

from __future__ import annotations

from typing import Any, Literal

from textgym.arguments import Count, check_argument
from textgym.importing import require
from textgym.scorers.base import Generations, Scorer, errors_of
from textgym.scorers.references import references_of
from textgym.scorers.words import WordTokenizer, word_tokenizer


class BLEU(Scorer):
    """BLEU against the references: precision of n-grams of words, times a penalty for brevity.

    It is sacrebleu's sentence BLEU over 100, with exponential smoothing and effective order: orders of n-grams that the
    completion is too short to have are left out, so a completion that is its reference scores 1 however short it is.
    With several references an n-gram counts if it is in any of them, as sacrebleu counts.

    Args:
        column: the prompts' column with the reference, a text or a list of texts.
        tokenizer: what the words are; see `textgym.scorers.words.word_tokenizer`. "13a" suits languages with spaces
            between words; it makes one word of a whole Chinese sentence, for which "zh" or "char" is right.
        max_order: the longest n-grams.
        case_sensitive: whether "Good" and "good" differ.
        name: the component's name in `info`.

    Range: [0, 1]; 1 is best. An empty completion, or an empty reference, gives 0.

    Cost: counting n-grams, linear in both lengths.

    Source: sacrebleu's `BLEU(effective_order=True).sentence_score` (Papineni et al. 2002; Post 2018).

    Example: `{"name": "bleu", "tokenizer": "zh"}`

    Raises:
        ImportError: sacrebleu is missing, or a package that its tokenizer needs.
        ValueError: an argument of another type, or no such tokenizer; when asked, prompts without that column.
    """

    def __init__(
        self,
        column: str = "reference",
        *,
        tokenizer: WordTokenizer = "13a",
        max_order: Count = 4,
        case_sensitive: bool = True,
        name: str = "bleu",
    ):
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: max_order", max_order, Count)
        check_argument(f"scorer {name!r}: case_sensitive", case_sensitive, bool)
        self.name, self.column, self.case_sensitive = name, column, case_sensitive
        with errors_of(name):
            self._words = word_tokenizer(tokenizer)
        self._bleu = require("sacrebleu", "overlap").BLEU(
            tokenize="none", max_ngram_order=max_order, effective_order=True
        )

    def score(self, generations: Generations) -> list[float]:
        """(n,) values in [0, 1]."""
        pairs = zip(generations.completions, references_of(generations, self.column), strict=True)
        return [_share(self._bleu, self._spaced(text), list(map(self._spaced, known))) for text, known in pairs]

    def _spaced(self, text: str) -> str:
        return " ".join(self._words(text if self.case_sensitive else text.lower()))


class ChrF(Scorer):
    """The chrF against the references: an F-score of n-grams of characters.

    Recall counts more than precision, and white space not at all. It needs no tokenizer, so it suits all scripts. With
    several references the best one counts, as in sacrebleu.

    Args:
        column: the prompts' column with the reference, a text or a list of texts.
        word_order: the longest n-grams of words that count beside those of characters; 2 is chrF++.
        case_sensitive: whether "Good" and "good" differ.
        name: the component's name in `info`.

    Range: [0, 1]; 1 is best. An empty completion, or an empty reference, gives 0.

    Cost: counting n-grams of up to 6 characters, linear in both lengths.

    Source: sacrebleu's `CHRF.sentence_score` over 100 (Popović 2015).

    Example: `{"name": "chrf"}`

    Raises:
        ImportError: sacrebleu is missing.
        ValueError: an argument of another type or range; when asked, prompts without that column.
    """

    def __init__(
        self,
        column: str = "reference",
        *,
        word_order: Literal[0, 1, 2] = 0,
        case_sensitive: bool = True,
        name: str = "chrf",
    ):
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: word_order", word_order, Literal[0, 1, 2])
        check_argument(f"scorer {name!r}: case_sensitive", case_sensitive, bool)
        self.name, self.column = name, column
        self._chrf = require("sacrebleu", "overlap").CHRF(word_order=word_order, lowercase=not case_sensitive)

    def score(self, generations: Generations) -> list[float]:
        """(n,) values in [0, 1]."""
        pairs = zip(generations.completions, references_of(generations, self.column), strict=True)
        return [_share(self._chrf, text, known) for text, known in pairs]


class ROUGE(Scorer):
    """ROUGE-1, -2 or -L against the references: an F-score of words that both have.

    With several references the best one counts, as in rouge-score.

    Args:
        column: the prompts' column with the reference, a text or a list of texts.
        variant: `"rouge1"` compares words, `"rouge2"` pairs of neighbouring words, `"rougeL"` the longest common
            subsequence of words.
        tokenizer: what the words are; see `textgym.scorers.words.word_tokenizer`. "rouge" keeps lower-cased runs of a-z
            and 0-9 only, so two equal Chinese texts score 0 and "café" is "caf"; "words", "zh" or "char" suit other
            scripts.
        name: the component's name in `info`.

    Range: [0, 1]; 1 is best. A completion or a reference without any word gives 0.

    Cost: counting words; "rougeL" grows with the product of both lengths.

    Source: rouge-score's `RougeScorer.score_multi` (Lin 2004), without a stemmer.

    Example: `{"name": "rouge", "variant": "rouge2"}`

    Raises:
        ImportError: rouge-score is missing, or sacrebleu, if its tokenizer is wanted.
        ValueError: an argument of another type, no such variant or tokenizer; when asked, prompts without that column.
    """

    def __init__(
        self,
        column: str = "reference",
        *,
        variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL",
        tokenizer: WordTokenizer = "rouge",
        name: str = "rouge",
    ):
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: variant", variant, Literal["rouge1", "rouge2", "rougeL"])
        self.name, self.column, self.variant = name, column, variant
        with errors_of(name):
            self.tokenize = word_tokenizer(tokenizer)
        require("rouge_score", "overlap")
        from rouge_score.rouge_scorer import RougeScorer

        self._rouge = RougeScorer([variant], tokenizer=self)  # it calls `self.tokenize`

    def score(self, generations: Generations) -> list[float]:
        """(n,) F-scores."""
        pairs = zip(generations.completions, references_of(generations, self.column), strict=True)
        return [self._rouge.score_multi(known, text)[self.variant].fmeasure for text, known in pairs]


def _share(metric: Any, text: str, references: list[str]) -> float:
    """A metric of sacrebleu's, in percent, as a share; equal texts get 100.00000000000004 from it."""
    return min(1.0, metric.sentence_score(text, references).score / 100)
