"""What an env is about: MDP, tokenizer, prompts and scorer, built from the arguments that both envs take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textgym.mdp import BoolArray, IntArray, TextMDP
from textgym.prompt_table import PromptTable
from textgym.scorers import Generations, Scorer, Scores, make_scorer
from textgym.tokenizers import Tokenizer, make_tokenizer


@dataclass(frozen=True)
class TextTask:
    """The parts of an env that do not change as it runs."""

    mdp: TextMDP
    tokenizer: Tokenizer
    prompts: PromptTable
    scorer: Scorer

    def score(
        self, observations: IntArray, prompt_ids: IntArray, rows: IntArray, lengths: IntArray, ended: BoolArray
    ) -> Scores:
        """Score n rows, each after its newest token; see `Generations` for the arguments."""
        return self.scorer.evaluate(
            Generations(self.mdp, self.tokenizer, self.prompts, observations, prompt_ids, rows, lengths, ended)
        )

    def decode(self, observation: Any) -> str:
        """The text of an observation, prompt and completion, special tokens left out; (P + T,) int64."""
        return self.tokenizer.decode(self._token_ids(observation))

    def decode_parts(self, observation: Any) -> tuple[str, str]:
        """The text of an observation, (P + T,) int64, in two parts, prompt and completion; see `Tokenizer`'s."""
        row, width = np.asarray(observation), self.mdp.max_prompt_tokens
        parts = self.tokenizer.decode_parts([self._token_ids(row[:width])], [self._token_ids(row[width:])])
        return parts[0][0], parts[1][0]

    def _token_ids(self, cells: Any) -> list[int]:
        cells = np.asarray(cells)
        return cells[cells != self.mdp.pad_id].tolist()


def make_task(
    tokenizer: Any = "tiny",
    prompts: Any = "reviews",
    scorer: Any = "sentiment",
    max_prompt_tokens: int = 16,
    max_new_tokens: int = 32,
    min_new_tokens: int = 0,
    banned_tokens: Sequence[int] = (),
    allowed_tokens: Sequence[int] | None = None,
    eos_token_ids: Sequence[int] | None = None,
    truncate_prompts: bool = False,
) -> TextTask:
    """Build a task; the arguments are those of the envs, see `TextGenerationEnv`."""
    text_tokenizer = make_tokenizer(tokenizer)
    if eos_token_ids is None:
        eos_token_ids = () if text_tokenizer.eos_token_id is None else (text_tokenizer.eos_token_id,)
    mdp = TextMDP(
        vocab_size=text_tokenizer.vocab_size,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        eos_token_ids=tuple(eos_token_ids),
        bos_token_id=text_tokenizer.bos_token_id,
        min_new_tokens=min_new_tokens,
        banned_tokens=tuple(banned_tokens),
        allowed_tokens=None if allowed_tokens is None else tuple(allowed_tokens),
    )
    built_scorer = make_scorer(scorer)
    return TextTask(mdp, text_tokenizer, PromptTable(prompts, text_tokenizer, mdp, truncate_prompts), built_scorer)


def check_options(options: dict[str, Any] | None, accepted: Sequence[str]) -> dict[str, Any]:
    """The options of a reset as a dict.

    Raises:
        ValueError: an option that is not accepted, or two forms of a pinned prompt.
    """
    options = options or {}
    if unknown := set(options) - set(accepted):
        raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}; accepted are {list(accepted)}")
    if len(set(options) - {"reset_mask"}) > 1:
        raise ValueError(f"pin a prompt by text or by ids, not both: {sorted(options)}")
    return options
