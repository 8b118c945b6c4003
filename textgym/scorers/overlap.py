"""Scorers of overlap with references: BLEU and chrF by sacrebleu, ROUGE by rouge-score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from textgym.arguments import Count, check_argument
from textgym.importing import did_you_mean, import_string, require
from textgym.scorers.base import Generations, Scorer, errors_of
from textgym.scorers.references import references_of


class BLEU(Scorer):
    """BLEU against the references: precision of n-grams of words, times a penalty for brevity.

    It is sacrebleu's sentence BLEU over 100, with exponential smoothing and effective order: orders of n-grams that the
    completion is too short to have are left out, so a completion that is its reference scores 1 however short it is.
    With several references an n-gram counts if it is in any of them, as sacrebleu counts.

    Args:
        column: the prompts' column with the reference, a text or a list of texts.
        tokenizer: what the words are; see `word_tokenizer`. "13a" suits languages with spaces between words; it makes
            one word of a whole Chinese sentence, for which "zh" or "char" is right.
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
        tokenizer: str | Callable[[str], list[str]] = "13a",
        max_order: Count = 4,
        case_sensitive: bool = True,
        name: str = "bleu",
    ):
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: max_order", max_order, Count)
        check_argument(f"scorer {name!r}: case_sensitive", case_sensitive, bool)
        self.name, self.column = name, column
        with errors_of(name):
            self._words = word_tokenizer(tokenizer)
        self._bleu = require("sacrebleu", "overlap").BLEU(
            tokenize="none", max_ngram_order=max_order, lowercase=not case_sensitive, effective_order=True
        )

    def score(self, generations: Generations) -> list[float]:
        """(n,) values in [0, 1]."""
        pairs = zip(generations.completions, references_of(generations, self.column), strict=True)
        return [_share(self._bleu, self._spaced(text), list(map(self._spaced, known))) for text, known in pairs]

    def _spaced(self, text: str) -> str:
        return " ".join(self._words(text))


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
        tokenizer: what the words are; see `word_tokenizer`. "rouge" keeps lower-cased runs of a-z and 0-9 only, so two
            equal Chinese texts score 0 and "café" is "caf"; "zh", "intl" or "char" suit other scripts.
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
        tokenizer: str | Callable[[str], list[str]] = "rouge",
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


def word_tokenizer(tokenizer: str | Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """What splits a text into the words that are compared.

    Args:
        tokenizer: a name, an import string of a function from a text to a list of texts, or such a function. Names are
            sacrebleu's: "13a" (the one of WMT), "intl" (splits off the punctuation of all scripts), "zh" (each Chinese
            character is a word), "char", "none" (words are what white space separates), "ja-mecab" and "ko-mecab"
            (which need packages of their own), "flores200", "flores101" and "spm" (which need sentencepiece and
            download a model); and "rouge", which is rouge-score's.

    Raises:
        ImportError: a package is missing.
        ValueError: there is no such tokenizer, or what it names is no function.
    """
    if callable(tokenizer):
        return _Checked(tokenizer)
    check_argument("tokenizer", tokenizer, str | Callable[[str], list[str]])
    if ":" in tokenizer:
        found = import_string(tokenizer, what="tokenizer")
        if not callable(found):
            raise ValueError(f"tokenizer {tokenizer!r} is {found!r}; it must be a function from a text to its words")
        return _Checked(found)
    if tokenizer == "rouge":
        require("rouge_score", "overlap")
        from rouge_score.tokenizers import DefaultTokenizer

        return DefaultTokenizer(use_stemmer=False).tokenize
    bleu = require("sacrebleu", "overlap").BLEU
    names = sorted({*bleu.TOKENIZERS, "rouge"})
    if tokenizer not in names:
        raise ValueError(
            f"tokenizer is {tokenizer!r}; accepted are {names}, an import string 'module:function' and a function"
            f"{did_you_mean(tokenizer, names)}"
        )
    return _Split(bleu(tokenize=tokenizer).tokenizer)


class _Checked:
    """A user's tokenizer; a text instead of a list would be taken for the list of its letters."""

    def __init__(self, words: Callable[[str], list[str]]):
        self._words = words

    def __call__(self, text: str) -> list[str]:
        words = self._words(text)
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"the tokenizer made {words!r} of {text!r}; it must make a list of texts")
        return list(words)


class _Split:
    """A tokenizer of sacrebleu's, which puts spaces between words, as one that gives a list of them."""

    def __init__(self, spaced: Callable[[str], str]):
        self._spaced = spaced

    def __call__(self, text: str) -> list[str]:
        return self._spaced(text.rstrip()).split()


def _share(metric: Any, text: str, references: list[str]) -> float:
    """A metric of sacrebleu's, in percent, as a share; equal texts get 100.00000000000004 from it."""
    return min(1.0, metric.sentence_score(text, references).score / 100)
