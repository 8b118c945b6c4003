"""Tokenizers as the envs need them: ids to text and back, the vocabulary size, EOS and BOS.

Every tokenizer is a Hugging Face `tokenizers.Tokenizer` underneath, so encoding is the same in an env and in
transformers. The embedded one and the character, word and byte tokenizers need no transformers import. Special tokens
are never added by `encode`: what a prompt contains is the user's choice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textgym.embedded import EMBEDDED
from textgym.prompts import is_begun

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer with its end-of-text and begin-of-text ids.

    Attributes:
        backend: the `tokenizers.Tokenizer`.
        eos_token_id: None where there is none; an env then needs `eos_token_ids`.
        bos_token_id: None where there is none; an env then refuses empty prompts.
        pretrained: the transformers tokenizer, if it came from one; it holds the chat template.
        more_eos_token_ids: ids that end a text, too, by the generation config of the model that the tokenizer was
            loaded with by name. Where a loaded tokenizer was given, they cannot be known.
    """

    backend: Backend
    eos_token_id: int | None = None
    bos_token_id: int | None = None
    pretrained: PreTrainedTokenizerBase | None = field(default=None, repr=False, compare=False)
    more_eos_token_ids: tuple[int, ...] = ()

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All ids that end a text, the tokenizer's own first; () where there is none.

        Raises:
            ValueError: the generation config names one that the tokenizer does not have.
        """
        if wrong := [i for i in self.more_eos_token_ids if not 0 <= i < self.vocab_size]:
            raise ValueError(
                f"the model's generation_config.json names the end ids {list(self.more_eos_token_ids)}, but {wrong[0]} "
                f"is none of its tokenizer's, 0 to {self.vocab_size - 1}; name the right ones with eos_token_ids=[...]"
            )
        own = () if self.eos_token_id is None else (self.eos_token_id,)
        return tuple(dict.fromkeys((*own, *self.more_eos_token_ids)))

    @cached_property
    def vocab_size(self) -> int:
        """The largest token id + 1, added tokens included."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens.

        Raises:
            ValueError: the text has a character that the vocabulary cannot spell.
        """
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"the tokenizer cannot encode {text!r}: {error}") from error

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out."""
        return self.backend.decode(list(token_ids))

    def decode_parts(
        self,
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        prompts: list[str] | None = None,
    ) -> tuple[list[str], list[str]]:
        """The texts of n rows, each decoded as one and cut in two where its completion begins.

        Decoded alone, a completion would lose what depends on its place: with SentencePiece, WordPiece and word
        tokenizers the space before its first word.

        Args:
            prompt_ids: token ids of the prompts.
            completion_ids: token ids of the completions.
            prompts: `decode_batch(prompt_ids)`, if that is known already.

        Returns:
            n texts of prompts and n of completions; together they make up `decode([*prompt_ids[i],
            *completion_ids[i]])`. That of a prompt is `decode(prompt_ids[i])`, less what the completion changes of it:
            a character whose bytes the two share belongs to the completion.
        """
        prompts = self.decode_batch(prompt_ids) if prompts is None else prompts
        if self._joins and not [text for text in prompts if text[-1:] == "\N{REPLACEMENT CHARACTER}"]:
            return prompts, self.decode_batch(completion_ids)  # no prompt ends in the middle of a character
        texts = self.decode_batch([[*p, *c] for p, c in zip(prompt_ids, completion_ids, strict=True)])
        seams = [len(os.path.commonprefix(pair)) for pair in zip(prompts, texts, strict=True)]
        return [t[:n] for t, n in zip(texts, seams, strict=True)], [t[n:] for t, n in zip(texts, seams, strict=True)]

    @cached_property
    def _joins(self) -> bool:
        """Whether texts of parts, put together, are the text of the whole, but for characters that are cut in two."""
        from tokenizers import decoders

        return isinstance(self.backend.decoder, decoders.ByteLevel | decoders.Fuse)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` for many rows."""
        # The library's decode_batch wakes a thread pool, which costs more than it saves at any size an env decodes.
        return [self.decode(row) for row in rows]

    def to_pretrained(self) -> PreTrainedTokenizerBase:
        """As a transformers tokenizer, for saving it beside a model."""
        if self.pretrained is not None:
            return self.pretrained
        from transformers import PreTrainedTokenizerFast

        ids = {"eos_token": self.eos_token_id, "bos_token": self.bos_token_id}
        names = {name: self.backend.id_to_token(i) for name, i in ids.items() if i is not None}
        return PreTrainedTokenizerFast(tokenizer_object=self.backend, **names)

    def apply_chat_template(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt text of a chat: ready for the assistant's turn or, if it ends with one, for the rest of it.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses the chat.
        """
        if self.pretrained is None or not self.pretrained.chat_template:
            raise ValueError("the prompts are chat messages, but the tokenizer has no chat template")
        begun = is_begun(messages)
        if begun and not isinstance(messages[-1]["content"], str):
            raise ValueError(f"the message of the assistant's that is to be gone on with is no text: {messages[-1]!r}")
        try:
            return self.pretrained.apply_chat_template(  # type: ignore[return-value]
                list(messages), tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
            )
        except Exception as error:  # what a template may raise is up to its author
            raise ValueError(f"the chat template refuses {messages!r}: {type(error).__name__}: {error}") from error


def make_tokenizer(spec: Any) -> Tokenizer:
    """Build a tokenizer.

    Args:
        spec: `"tiny"` or `"tiny-tasks"` (embedded), `"bytes"`, `{"name": "characters", "alphabet": "ab "}`,
            `{"name": "words", "words": ["good", "film"]}`, a directory or hub id that `transformers.AutoTokenizer`
            reads, a transformers fast tokenizer, or a `Tokenizer`.

    Raises:
        ValueError: nothing of these, or a slow tokenizer.
    """
    if isinstance(spec, Tokenizer):
        return spec
    if isinstance(spec, dict) and spec.get("name") == "characters" and set(spec) == {"name", "alphabet"}:
        return character_tokenizer(spec["alphabet"])
    if isinstance(spec, dict) and spec.get("name") == "words" and set(spec) == {"name", "words"}:
        return word_tokenizer(spec["words"])
    if isinstance(spec, str) and spec in EMBEDDED:
        return embedded_tokenizer(spec)
    if spec == "bytes":
        return byte_tokenizer()
    if isinstance(spec, str):
        from textgym.language_models import load_tokenizer
        from textgym.language_models.generation_config import end_ids

        return replace(from_pretrained(load_tokenizer(spec)), more_eos_token_ids=end_ids(spec))
    if hasattr(spec, "chat_template"):
        return from_pretrained(spec)
    raise ValueError(
        f'unknown tokenizer {spec!r}; accepted are "tiny", "tiny-tasks", "bytes", {{"name": "characters", "alphabet": '
        '"..."}, {"name": "words", "words": [...]}, a directory, a hub id, a transformers fast tokenizer or a textgym '
        "Tokenizer"
    )


def from_pretrained(pretrained: PreTrainedTokenizerBase) -> Tokenizer:
    """Wrap a transformers tokenizer, which must be a fast one."""
    if not pretrained.is_fast:
        raise ValueError(f"{type(pretrained).__name__} is a slow tokenizer; a fast one is needed")
    return Tokenizer(
        pretrained.backend_tokenizer,  # type: ignore[attr-defined]
        pretrained.eos_token_id,
        pretrained.bos_token_id,
        pretrained,
    )


def embedded_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of an embedded model, read without transformers."""
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_file(str(EMBEDDED[name] / "tokenizer.json"))
    config = json.loads((EMBEDDED[name] / "tokenizer_config.json").read_text(encoding="utf-8"))
    return Tokenizer(backend, backend.token_to_id(config["eos_token"]), backend.token_to_id(config["bos_token"]))


def character_tokenizer(alphabet: str) -> Tokenizer:
    """One token per character of `alphabet`, in its order; then EOS (id len(alphabet)), which is BOS as well.

    Raises:
        ValueError: the alphabet is empty or repeats a character.
    """
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    if not alphabet or len(set(alphabet)) < len(alphabet):
        raise ValueError(f"the alphabet {alphabet!r} must name at least one character, and each only once")
    # An unknown token that is not in the vocabulary makes WordLevel refuse unknown characters.
    backend = Backend(models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    return Tokenizer(backend, len(alphabet), len(alphabet))


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """One token per word, in their order; then EOS (id len(words)), which is BOS as well.

    A text is split at whitespace, and decoded with one space between words.

    Raises:
        ValueError: there is no word, one is repeated, or one is empty, has whitespace in it or is `<eos>`.
    """
    from tokenizers import AddedToken, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"words is {words!r}; it must be a list of strings")
    if not words or len(set(words)) < len(words):
        raise ValueError(f"the words {list(words)} must be at least one, and each named only once")
    if wrong := [word for word in words if word.split() != [word] or word == "<eos>"]:
        raise ValueError(f"the words contain {wrong}; a word is not empty, has no whitespace, and is not '<eos>'")
    # An unknown token that is not in the vocabulary makes WordLevel refuse unknown words.
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    return Tokenizer(backend, len(words), len(words))


def byte_tokenizer() -> Tokenizer:
    """One token per UTF-8 byte (ids 0..255), then EOS (id 256), which is BOS as well."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}  # GPT-2's byte alphabet; the rest follows at 256
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte if byte in printable else 256 + others.index(byte)): byte for byte in range(256)}
    backend = Backend(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    return Tokenizer(backend, 256, 256)
