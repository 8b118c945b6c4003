"""Rows to score, as scorers see them. They are decoded when that is first asked for, and once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textgym.mdp import BoolArray, IntArray, TextMDP
from textgym.prompts import Messages, is_begun
from textgym.scorers.trainer import Trainer

if TYPE_CHECKING:
    from textgym.prompt_table import PromptTable
    from textgym.tokenizers import Tokenizer


@dataclass
class Generations:
    """n rows to score.

    Attributes:
        mdp: the MDP's facts.
        tokenizer: the env's tokenizer.
        table: the env's prompts.
        observations: (n, P + T) int64, the rows after their newest token.
        prompt_ids: (n,) rows of the prompt table; the same id, the same prompt.
        rows: (n,) which row of the vector env each one is.
        lengths: (n,) completion tokens, EOS included.
        ended: (n,) whether the row ended with its newest token; all True unless the scorer pays per token.
        trainer: how far the training around the env is, and what is to be told it beside rewards.

    The other properties are made anew whenever they are read, so nobody else sees what is done to them.
    """

    mdp: TextMDP
    tokenizer: Tokenizer
    table: PromptTable
    observations: IntArray
    prompt_ids: IntArray
    rows: IntArray
    lengths: IntArray
    ended: BoolArray
    trainer: Trainer = field(default_factory=Trainer)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.observations)

    def select(self, mask: BoolArray | IntArray) -> Generations:
        """The rows where `mask` is True, or those it numbers."""
        return Generations(
            self.mdp,
            self.tokenizer,
            self.table,
            self.observations[mask],
            self.prompt_ids[mask],
            self.rows[mask],
            self.lengths[mask],
            self.ended[mask],
            self.trainer,
        )

    @property
    def completion_ids(self) -> list[list[int]]:
        """Token ids of each completion, EOS included, padding not."""
        return [ids.copy() for ids in self._completion_ids]

    @property
    def prompts(self) -> list[str]:
        """Prompts as the source gave them; a chat as its template renders it."""
        return self.table.texts(self.prompt_ids)

    @property
    def completions(self) -> list[str]:
        """What follows the prompt in each of `texts`; so a completion of words may begin with a space."""
        return list(self._parts[1])

    @property
    def texts(self) -> list[str]:
        """Prompt and completion, the whole row decoded at once, special tokens left out: what `env.decode` gives.

        Not always `prompts` and `completions` put together: a row holds no more than the last P tokens of a prompt,
        and what of it is special tokens, or is changed by the tokenizer, does not read as in the source.
        """
        return [prompt + completion for prompt, completion in zip(*self._parts, strict=True)]

    @property
    def chats(self) -> list[Messages]:
        """Prompts as message lists; a text prompt becomes one user message.

        A message of the assistant at the end is left out: the completion goes on with it, so `replies` has it.
        """
        contents = self.table.contents(self.prompt_ids)
        chats = [[{"role": "user", "content": c}] if isinstance(c, str) else c for c in contents]
        return [chat[:-1] if is_begun(chat) else chat for chat in chats]

    @property
    def replies(self) -> list[Messages]:
        """Completions as message lists, each of one message of the assistant's.

        Where the prompt ends with the beginning of that message, the completion is what follows it in the row's text.
        Otherwise the message is a text of its own, decoded as such.
        """
        contents: list[Any] = self.table.contents(self.prompt_ids)
        texts = [
            content[-1]["content"] + completion if is_begun(content) else self.tokenizer.decode(ids)
            for content, completion, ids in zip(contents, self.completions, self._completion_ids, strict=True)
        ]
        return [[{"role": "assistant", "content": text}] for text in texts]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The prompt source's columns, a list of n values per name."""
        return self.table.columns(self.prompt_ids)

    @cached_property
    def _completion_ids(self) -> list[list[int]]:
        completions = self.observations[:, self.mdp.max_prompt_tokens :].tolist()
        return [row[:length] for row, length in zip(completions, self.lengths.tolist(), strict=True)]

    @cached_property
    def _parts(self) -> tuple[list[str], list[str]]:
        """Prompts and completions as they read in the rows' texts, which they make up."""
        entries = self.table.find(self.prompt_ids)
        token_ids: list[Any] = [entry.token_ids for entry in entries]
        return self.tokenizer.decode_parts(token_ids, self._completion_ids, [entry.decoded for entry in entries])
