"""The table in which an env keeps the prompts of its episodes, each encoded once; `prompt_id` is a prompt's number.

The prompts of a finite source stay. Those that a sampler or a pin brings are let go once no row of the env uses them
and many newer ones have come, so a run of ever new prompts needs no more and more memory. What the table hands out is
a copy: nothing that a scorer does to a chat or a column reaches another episode.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.importing import did_you_mean
from textgym.mdp import IntArray, TextMDP
from textgym.prompt_sources import PromptLimit
from textgym.prompts import Messages, Prompt, copied, load_prompts, to_prompt
from textgym.tokenizers import Tokenizer

Ids = NDArray[np.int32]  # token ids need no more, and rows of half the size are copied faster

KEPT = 4096
"""How many prompts that no row uses are kept, those that were met last, beside the source's own."""


@dataclass
class Entry:
    """A prompt of the table.

    Attributes:
        prompt: what the source, the sampler or the pin gave.
        text: its text; a chat as the template renders it.
        token_ids: what of it an observation holds, (at most P,) int32.
        tokenizer: the env's.
    """

    prompt: Prompt
    text: str
    token_ids: Ids
    tokenizer: Tokenizer

    @cached_property
    def decoded(self) -> str:
        """The text of `token_ids`: special tokens are left out, and so is what was cut off."""
        decoded = self.tokenizer.decode(self.token_ids.tolist())
        return self.text if decoded == self.text else decoded  # held once


class PromptTable:
    """The prompts of one env.

    A prompt's id is never given to another one. Ids of the source's prompts count from 0 and are valid for ever. A
    prompt that a sampler or a pin brought is valid as long as a row uses it, and until `KEPT` others were met after it;
    met again after that, it gets a new id.

    Attributes:
        limit: which prompts fit.
        chooser: draws ids of the source's prompts in place of the uniform draw, for as long as a training sets it
            (`textgym.curriculum`).

    Args:
        source: see `textgym.prompts.load_prompts`.
        tokenizer: encodes texts and renders chats.
        mdp: gives P, the pad id and BOS.
        truncate: keep the last P tokens of a prompt that is too long, instead of raising.

    Raises:
        ValueError: a prompt longer than P tokens, or an empty one where the tokenizer has no BOS.
    """

    def __init__(self, source: Any, tokenizer: Tokenizer, mdp: TextMDP, truncate: bool = False):
        self._tokenizer, self._mdp, self._truncate = tokenizer, mdp, truncate
        self.chooser: Callable[[np.random.Generator, int], IntArray] | None = None
        self.limit = PromptLimit(tokenizer, mdp.max_prompt_tokens, truncate)
        loaded = load_prompts(source, self.limit)
        self._sampler = None if isinstance(loaded, list) else loaded
        self._entries: dict[int, Entry] = {}  # by id: the source's, then the others, those met longest ago first
        self._alike: dict[bytes, tuple[int, ...]] = {}  # ids by `_key`
        self._next_id = 0
        self._columns: tuple[str, ...] | None = None  # of the source's prompts; None until a sampler has given one
        for i, prompt in enumerate(loaded if isinstance(loaded, list) else ()):
            self._columns = tuple(prompt.columns)
            self._append(self.encode(prompt, f"prompt {i}"))
        self._size = len(self._entries)
        self._release_at = self._size + 2 * KEPT
        self._rows = self._first_observations(list(self._entries.values()))  # of the source's prompts
        for row, entry in zip(self._rows, self._entries.values(), strict=True):
            entry.token_ids = row[mdp.max_prompt_tokens - len(entry.token_ids) : mdp.max_prompt_tokens]  # held once

    def __len__(self) -> int:
        """How many prompts the table holds now."""
        return len(self._entries)

    @property
    def num_prompts(self) -> int | None:
        """How many prompts the source has, their ids from 0 on; None for a sampler, which has no end."""
        return None if self._sampler is not None else self._size

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` prompt ids from the source, with replacement, uniformly or as `chooser` does, (count,)."""
        if self.chooser is not None:
            return self.chooser(rng, count)
        if self._sampler is None:
            return rng.integers(self._size, size=count)
        return np.array([self._add_sampled(self._sampler(rng)) for _ in range(count)], np.int64)

    def observations(self, prompt_ids: Any) -> Ids:
        """First observations of episodes, the prompt right-aligned and no completion: (...) -> (..., P + T) int32."""
        if len(self._entries) == self._size:
            return self._rows[prompt_ids]
        return self._first_observations(self.find(prompt_ids)).reshape(*np.shape(prompt_ids), -1)

    def find(self, prompt_ids: Any) -> list[Entry]:
        """The prompts of some ids, to be read only.

        Raises:
            IndexError: there is no such prompt, or no longer.
        """
        try:
            return [self._entries[i] for i in np.ravel(prompt_ids).tolist()]
        except KeyError as error:
            raise IndexError(
                f"there is no prompt {error}: prompts that a sampler or a pin brought are kept while a row uses them, "
                f"and until {KEPT} others were met after them"
            ) from None

    def holding(self, prompt_ids: Any) -> PromptTable:
        """A table of some of the prompts, by the same ids, that can be read while this one changes."""
        held = copy.copy(self)
        held._entries = dict(zip(np.ravel(prompt_ids).tolist(), self.find(prompt_ids), strict=True))
        held._size = -1  # its first observations are made anew
        return held

    def copy(self) -> PromptTable:
        """A table with the same prompts by the same ids, which goes its own way from now on."""
        other = copy.copy(self)
        other._entries, other._alike = dict(self._entries), dict(self._alike)
        return other

    def texts(self, prompt_ids: IntArray) -> list[str]:
        """Prompt texts as the source gave them; a chat as its template renders it."""
        return [entry.text for entry in self.find(prompt_ids)]

    def contents(self, prompt_ids: IntArray) -> list[str | Messages]:
        """Prompts as the source gave them, texts or chats."""
        return [copied(entry.prompt.content) for entry in self.find(prompt_ids)]

    def pin(self, prompt_id: int) -> dict[str, Any]:
        """What a reset's options name a prompt by, columns included, so that it keeps its id.

        Of a prompt that the source repeats, with the same columns, that is the first one's id.
        """
        (entry,) = self.find([prompt_id])
        return {"prompt": copied(entry.prompt.content), **copied(dict(entry.prompt.columns))}

    def columns(self, prompt_ids: IntArray) -> dict[str, list[Any]]:
        """The source's columns, a list per name; None where a pinned prompt was given without that column.

        As long as a sampler has given no prompt, the columns that the pinned prompts have.
        """
        if self._columns == ():
            return {}
        prompts = [entry.prompt for entry in self.find(prompt_ids)]
        names = self._columns or dict.fromkeys(name for prompt in prompts for name in prompt.columns)
        return {name: [copied(prompt.columns.get(name)) for prompt in prompts] for name in names}

    def add(self, prompt: Any) -> int:
        """The id of a pinned prompt (text, chat or dict), appended if it is not in the table yet.

        Raises:
            ValueError: it is no prompt, or has a column that the source's prompts do not have.
        """
        where = "the pinned prompt"
        pinned = to_prompt(prompt, where)
        if self._columns is not None and (more := [name for name in pinned.columns if name not in self._columns]):
            raise ValueError(
                f"{where} has the column {more[0]!r}, which the source's prompts do not have"
                f"{did_you_mean(more[0], self._columns)}; they have {list(self._columns)}"
            )
        return self._intern(self.encode(pinned, where))

    def add_ids(self, token_ids: Any) -> int:
        """`add` for token ids, a 1-D integer array; pads (V) are left out."""
        array = np.asarray(token_ids)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"prompt_ids must be integers, one row per env, not {array.dtype} of shape {array.shape}")
        if array.size and not (0 <= array.min() and array.max() <= self._mdp.pad_id):
            raise ValueError(
                f"prompt_ids run from 0 to {self._mdp.pad_id} (the pad id), not {array.min()}..{array.max()}"
            )
        ids = self._fit(array[array != self._mdp.pad_id].tolist(), "the pinned prompt_ids")
        text = self._tokenizer.decode(ids.tolist())
        return self._intern(Entry(Prompt(text, {}), text, ids, self._tokenizer))

    def encode(self, prompt: Prompt, where: str) -> Entry:
        """A prompt as the table would hold it, without taking it up; `where` names it in errors.

        Raises:
            ValueError: it has more than P tokens, or cannot be encoded.
        """
        content = prompt.content
        try:
            text = content if isinstance(content, str) else self._tokenizer.apply_chat_template(content)
            ids = self._tokenizer.encode(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return Entry(prompt, text, self._fit(ids, f"{where}, {text!r},"), self._tokenizer)

    def release(self, *in_use: Any) -> None:
        """Let go of prompts that are neither the source's, nor in use, nor among the `KEPT` that were met last.

        Costs nothing until there are many of them, and then lets go of many at once.

        Args:
            in_use: ids that are still needed, one or an array of them; -1 stands for none.
        """
        if len(self._entries) < self._release_at:
            return
        used = set[int]().union(*(np.ravel(ids).tolist() for ids in in_use))
        for prompt_id in list(self._entries)[self._size : -KEPT]:
            if prompt_id not in used:
                key = _key(self._entries.pop(prompt_id).token_ids)
                if others := tuple(i for i in self._alike.pop(key) if i != prompt_id):
                    self._alike[key] = others
        left = len(self._entries) - self._size  # more than `KEPT` where very many are in use
        self._release_at = self._size + 2 * max(KEPT, left)

    def _add_sampled(self, prompt: Any) -> int:
        where = "the sampled prompt"
        sampled = to_prompt(prompt, where)
        if self._columns is None:
            self._columns = tuple(sampled.columns)
        if set(sampled.columns) != set(self._columns):
            raise ValueError(f"{where} has columns {sorted(sampled.columns)}, the first one {sorted(self._columns)}")
        return self._intern(self.encode(sampled, where))

    def _intern(self, entry: Entry) -> int:
        alike = self._alike.get(_key(entry.token_ids), ())
        prompts, wanted = {i: self._entries[i].prompt for i in alike}, entry.prompt
        # the very prompt, or one with the same token ids (it may have been cut) and the same columns, if it names any
        known = [i for i in alike if prompts[i] == wanted] or [
            i for i in alike if not wanted.columns or prompts[i].same_columns(wanted)
        ]
        if not known:
            return self._append(entry)
        if known[0] >= self._size:
            self._entries[known[0]] = self._entries.pop(known[0])  # met last
        return known[0]

    def _append(self, entry: Entry) -> int:
        prompt_id, self._next_id = self._next_id, self._next_id + 1
        self._entries[prompt_id] = entry
        key = _key(entry.token_ids)
        self._alike[key] = (*self._alike.get(key, ()), prompt_id)
        return prompt_id

    def _first_observations(self, entries: list[Entry]) -> Ids:
        width = self._mdp.max_prompt_tokens
        rows = np.full((len(entries), width + self._mdp.max_new_tokens), self._mdp.pad_id, np.int32)
        for row, entry in zip(rows, entries, strict=True):
            row[width - len(entry.token_ids) : width] = entry.token_ids
        return rows

    def _fit(self, ids: Sequence[int], name: str) -> Ids:
        """An empty prompt becomes BOS; one that is too long is refused, or cut where the user asked for that."""
        limit, bos = self._mdp.max_prompt_tokens, self._mdp.bos_token_id
        if not ids and bos is None:
            raise ValueError(f"{name} is an empty prompt, and the tokenizer has no BOS token to stand for it")
        if len(ids) > limit and not self._truncate:
            raise ValueError(
                f"{name} has {len(ids)} tokens, more than max_prompt_tokens={limit}; raise it, or pass "
                "truncate_prompts=True to keep the last ones"
            )
        return np.array(list(ids)[-limit:] or [bos], np.int32)  # type: ignore[list-item]


def _key(token_ids: Ids) -> bytes:
    """What prompts with the same token ids share; the same in every process, so that a table can be pickled."""
    return hashlib.blake2b(token_ids.tobytes(), digest_size=16).digest()
