"""Splitting texts into words, for scorers that count them: our own way, sacrebleu's, rouge-score's, or a user's."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from textgym.arguments import check_argument
from textgym.importing import did_you_mean, import_string, require

WordTokenizer = str | Callable[[str], list[str]]
"""The argument `tokenizer` of scorers; see `word_tokenizer`."""


def words_in(text: str) -> list[str]:
    """The words of a text, in order: runs of letters and digits with their combining marks, in lower case.

    An apostrophe within a word belongs to it ("don't"); all else separates. The form is Unicode's NFC of the folded
    case. In a script without spaces between words a whole run is one word.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    spaced = folded.translate(_SEPARATED).split()
    return [word for word in (run.strip("'") for run in spaced) if word]


class _Separated(dict[int, str]):
    """What `str.translate` makes of each character: itself in a word, an apostrophe, or a space; found when met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        belongs = character.isalnum() or character == "'" or unicodedata.category(character).startswith("M")
        self[code] = character if belongs else "'" if character == "’" else " "
        return self[code]


_SEPARATED = _Separated()


def word_tokenizer(tokenizer: WordTokenizer) -> Callable[[str], list[str]]:
    """What splits a text into words.

    Args:
        tokenizer: a name, an import string of a function from a text to a list of texts, or such a function. Names are

            - "words": `words_in`, which suits all scripts with spaces between words;
            - "rouge": rouge-score's, lower-cased runs of a-z and 0-9 (extra `overlap`);
            - sacrebleu's (extra `overlap`): "13a" (the one of WMT), "intl" (splits off the punctuation of all scripts),
              "zh" (each Chinese character is a word), "char" (each character is), "none" (words are what white space
              separates), "ja-mecab" and "ko-mecab" (which need packages of their own), "flores101", "flores200" and
              "spm" (which need sentencepiece and download a model).

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
    if tokenizer == "words":
        return words_in
    if tokenizer == "rouge":
        require("rouge_score", "overlap")
        from rouge_score.tokenizers import DefaultTokenizer

        return DefaultTokenizer(use_stemmer=False).tokenize
    bleu = require("sacrebleu", "overlap").BLEU
    names = sorted({*bleu.TOKENIZERS, "rouge", "words"})
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
