"""Prompt sources, and the table in which an env keeps every prompt it has met, encoded once.

A prompt is a text or a list of chat messages, with the columns (references, metadata) that stand beside it. A source is
a finite list of them or a sampler function. `prompt_id` is a row of the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textgym.importing import import_string
from textgym.mdp import IntArray, TextMDP, first_observation
from textgym.tokenizers import Tokenizer

Messages = list[dict[str, str]]
Sampler = Callable[[np.random.Generator], Any]
BUILTIN = {"reviews": Path(__file__).parent / "assets" / "reviews.txt"}
ACCEPTED = (
    "a list of texts, chats or dicts with a 'prompt' key, a .txt or .jsonl file, 'module:attribute', "
    f"a sampler function or one of {sorted(BUILTIN)}"
)


@dataclass(frozen=True)
class Prompt:
    """A text or chat, and its columns."""

    content: str | Messages
    columns: Mapping[str, Any]


def to_prompt(row: Any, where: str) -> Prompt:
    """Read one row of a source; `where` names it in errors."""
    columns: dict[str, Any] = {}
    if isinstance(row, Mapping):
        if "prompt" not in row:
            hint = "; a chat is a list of messages, and a source a list of chats" if "role" in row else ""
            raise ValueError(f"{where} has no 'prompt' key, only {sorted(row)}{hint}")
        columns = {name: value for name, value in row.items() if name != "prompt"}
        row = row["prompt"]
    if reserved := {"prompts", "completions", "completion_ids"} & set(columns):
        raise ValueError(f"{where} has a column named {sorted(reserved)[0]!r}, which scorers already receive")
    is_chat = isinstance(row, list) and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in row)
    if not isinstance(row, str) and not (is_chat and row):
        raise ValueError(f"{where} is {row!r}; a prompt is a text or a non-empty list of chat messages")
    return Prompt(row, columns)


def load_prompts(source: Any) -> list[Prompt] | Sampler:
    """Read a prompt source.

    Args:
        source: an iterable of texts, of chats (lists of `{"role", "content"}` messages) or of dicts whose `"prompt"` is
            one of these and whose other keys are columns, such as a `datasets.Dataset`; a `.txt` file (a prompt per
            line) or a `.jsonl` file (a dict per line); `"reviews"`, the built-in movie-review openings; an import
            string `"module:attribute"` of any of these; or a function of a `numpy.random.Generator` that returns one
            prompt.

    Raises:
        ValueError: none of these, no prompt at all, a malformed line (its number), or rows whose columns differ.
        FileNotFoundError: the file does not exist.
    """
    if isinstance(source, str | Path):
        if str(source) in BUILTIN:
            rows = _read_file(BUILTIN[str(source)])
        elif Path(source).suffix in (".txt", ".jsonl"):
            rows = _read_file(Path(source))
        elif ":" in str(source):
            return load_prompts(import_string(str(source), what="prompt source"))
        else:
            raise ValueError(f"unknown prompt source {str(source)!r}; accepted are {ACCEPTED}")
    elif callable(source):
        return source
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        rows = [to_prompt(row, f"prompt {i}") for i, row in enumerate(source)]
    else:
        raise ValueError(f"a prompt source cannot be a {type(source).__name__}; accepted are {ACCEPTED}")
    if not rows:
        raise ValueError("the prompt source is empty; for unconditional generation use the empty prompt, ['']")
    for i, row in enumerate(rows):
        if set(row.columns) != set(rows[0].columns):
            raise ValueError(f"prompt {i} has columns {sorted(row.columns)}, prompt 0 {sorted(rows[0].columns)}")
    return rows


def _read_file(path: Path) -> list[Prompt]:
    """Prompts of a `.txt` or `.jsonl` file."""
    if not path.is_file():
        raise FileNotFoundError(f"the prompt file {str(path)!r} does not exist")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"line {number} of {str(path)!r}"
        if not line.strip():
            raise ValueError(f'{where} is blank; an empty prompt is written {{"prompt": ""}} in a .jsonl file')
        if path.suffix == ".jsonl":
            try:
                line = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not JSON: {error}") from error
        rows.append(to_prompt(line, where))
    return rows


class PromptTable:
    """The prompts of one env as rows of observations; grows with samplers and pins.

    Args:
        source: see `load_prompts`.
        tokenizer: encodes texts and renders chats.
        mdp: gives P, the pad id and BOS.
        truncate: keep the last P tokens of a prompt that is too long, instead of raising.

    Raises:
        ValueError: a prompt longer than P tokens, or an empty one where the tokenizer has no BOS.
    """

    def __init__(self, source: Any, tokenizer: Tokenizer, mdp: TextMDP, truncate: bool = False):
        self._tokenizer, self._mdp, self._truncate = tokenizer, mdp, truncate
        self._prompts: list[Prompt] = []
        self._texts: list[str] = []
        self._known: dict[bytes, list[int]] = {}
        self._rows = np.empty((0, *mdp.observation_space.shape), np.int64)
        loaded = load_prompts(source)
        self._sampler = None if isinstance(loaded, list) else loaded
        if isinstance(loaded, list):
            encoded = [self._encode(prompt) for prompt in loaded]
            self._rows = np.stack([first_observation(mdp, ids) for ids, _ in encoded])
            for i, (prompt, (_, text)) in enumerate(zip(loaded, encoded, strict=True)):
                self._remember(i, prompt, text)
        self._columns = tuple(self._prompts[0].columns) if self._prompts else None
        self._size = len(self._prompts)

    @property
    def num_prompts(self) -> int | None:
        """How many prompts the source has, their ids from 0 on; None for a sampler, which has no end."""
        return None if self._sampler is not None else self._size

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` prompt ids from the source, uniformly with replacement, (count,)."""
        if self._sampler is None:
            return rng.integers(self._size, size=count)
        return np.array([self.add(self._sampler(rng)) for _ in range(count)], np.int64)

    def observations(self, prompt_ids: Any) -> IntArray:
        """First observations of episodes, the prompt right-aligned and no completion: (...) -> (..., P + T)."""
        return self._rows[prompt_ids]

    def texts(self, prompt_ids: IntArray) -> list[str]:
        """Prompt texts; a chat as its template renders it."""
        return [self._texts[i] for i in prompt_ids]

    def contents(self, prompt_ids: IntArray) -> list[str | Messages]:
        """Prompts as the source gave them, texts or chats."""
        return [self._prompts[i].content for i in prompt_ids]

    def pin(self, prompt_id: int) -> dict[str, Any]:
        """What a reset's options name a prompt by, columns included, so that it keeps its id.

        Of a prompt that the source repeats, with the same columns, that is the first one's id.
        """
        prompt = self._prompts[prompt_id]
        return {"prompt": prompt.content, **prompt.columns}

    def columns(self, prompt_ids: IntArray) -> dict[str, list[Any]]:
        """The source's columns, a list per name; None for a pinned prompt that the source does not have."""
        names = self._columns or ()
        return {name: [self._prompts[i].columns.get(name) for i in prompt_ids] for name in names}

    def add(self, prompt: Any) -> int:
        """The id of a prompt (text, chat or dict), appended if it is not in the table yet."""
        read = to_prompt(prompt, "the sampled or pinned prompt")
        ids, text = self._encode(read)
        return self._intern(ids, read, text)

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
        text = self._tokenizer.decode(ids)
        return self._intern(ids, Prompt(text, {}), text)

    def _intern(self, ids: list[int], prompt: Prompt, text: str) -> int:
        row = first_observation(self._mdp, ids)
        alike = self._known.get(row.tobytes(), [])
        # the very prompt, or one with the same token ids (it may have been cut) and the same columns, if it names any
        known = [i for i in alike if self._prompts[i] == prompt] or [
            i for i in alike if not prompt.columns or self._prompts[i].columns == prompt.columns
        ]
        if known:
            return known[0]
        index = len(self._prompts)
        if index == len(self._rows):  # full: double
            self._rows = np.concatenate([self._rows, np.empty((max(16, index), len(row)), np.int64)])
        self._rows[index] = row
        self._remember(index, prompt, text)
        if self._columns is None:
            self._columns = tuple(prompt.columns)
        return index

    def _remember(self, index: int, prompt: Prompt, text: str) -> None:
        self._prompts.append(prompt)
        self._texts.append(text)
        self._known.setdefault(self._rows[index].tobytes(), []).append(index)

    def _encode(self, prompt: Prompt) -> tuple[list[int], str]:
        content = prompt.content
        text = content if isinstance(content, str) else self._tokenizer.apply_chat_template(content)
        return self._fit(self._tokenizer.encode(text), repr(text)), text

    def _fit(self, ids: Sequence[int], name: str) -> list[int]:
        """An empty prompt becomes BOS; one that is too long is refused, or cut where the user asked for that."""
        limit, bos = self._mdp.max_prompt_tokens, self._mdp.bos_token_id
        if not ids and bos is None:
            raise ValueError(f"{name} is an empty prompt, and the tokenizer has no BOS token to stand for it")
        if len(ids) > limit and not self._truncate:
            raise ValueError(
                f"{name} has {len(ids)} tokens, more than max_prompt_tokens={limit}; raise it, or pass "
                "truncate_prompts=True to keep the last ones"
            )
        return list(ids)[-limit:] or [bos]  # type: ignore[list-item]
