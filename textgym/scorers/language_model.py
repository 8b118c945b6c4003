"""A frozen language model that reads what a policy wrote, in whatever tokenizer the policy wrote it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.arguments import Count, check_argument
from textgym.mdp import TextMDP
from textgym.scorers.base import FloatArray, Generations, ScorerError, errors_of
from textgym.tokenizers import Tokenizer, from_pretrained, make_tokenizer

if TYPE_CHECKING:
    import torch

Pair = tuple[list[int], list[int]]
"""The token ids of a context, at least one, and of what follows it, at least one."""


class LanguageModel:
    """A causal language model with its tokenizer, as scorers use it.

    Attributes:
        model: the model, in eval mode.
        tokenizer: its tokenizer.

    Args:
        name: the scorer's, for errors.
        model: anything that `textgym.language_models.load_model` accepts.
        tokenizer: anything that `make_tokenizer` accepts; None is the model's own.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: see `load_model`.
        batch_size: rows per forward pass at most.

    Raises:
        ValueError: there is no such model, tokenizer, dtype or device, they do not belong together, or `batch_size` is
            below 1.
        ImportError: torch or transformers is missing.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        device: str | torch.device | None,
        dtype: str | torch.dtype | None,
        batch_size: int,
    ):
        check_argument(f"scorer {name!r}: batch_size", batch_size, Count)
        from textgym.language_models import load_model
        from textgym.language_models.forward import check_model

        self.name, self.batch_size = name, batch_size
        with errors_of(name):
            self.model: Any = load_model(model, device=device, dtype=dtype)
            self.tokenizer = _load_tokenizer(model, tokenizer)
            ends = (0,)  # of no consequence here
            check_model(self.model, TextMDP(self.tokenizer.vocab_size, 1, 1, ends))
        self._leading = _leading_ids(self.tokenizer)
        self._compared: tuple[Tokenizer, bool] | None = None

    @property
    def start(self) -> list[int]:
        """The begin token alone, which is the context of a text without one.

        Raises:
            ValueError: the tokenizer has none.
        """
        if self.tokenizer.bos_token_id is None:
            raise ValueError(
                f"scorer {self.name!r}: the model's tokenizer has no begin token, so nothing says how likely a text "
                "begins as it does"
            )
        return [self.tokenizer.bos_token_id]

    def context(self, text: str) -> list[int]:
        """The token ids of a prompt's text; the begin token where that is empty.

        Raises:
            ValueError: it is empty, and there is no begin token.
        """
        return self._leading + self.tokenizer.encode(text) if text else self.start

    def read(self, generations: Generations) -> list[Pair]:
        """Each row's prompt and completion as the model's token ids.

        Where the env's tokenizer has the same vocabulary, these are the row's own ids, as the policy chose them.
        Otherwise they are its text, encoded as a whole; a token that is of both belongs to the completion. The
        completion then ends in the model's own end token if it ended in one of the env's, or has no token at all.

        Raises:
            ScorerError: the prompt is a chat, and the tokenizers differ, and the model's has no chat template.
        """
        generations.mdp.refuse_turns(f"scorer {self.name!r}, which reads every token as the policy's,")
        if self._shares_vocabulary(generations.tokenizer):
            prompts = generations.observations[:, : generations.mdp.max_prompt_tokens].tolist()
            contexts = [[i for i in ids if i != generations.mdp.pad_id] for ids in prompts]
            return list(zip(contexts, generations.completion_ids, strict=True))
        contents = generations.table.contents(generations.prompt_ids)
        parts = zip(contents, generations.texts, generations.completions, generations.completion_ids, strict=True)
        return [
            self._encode(content, text, completion, bool(generations.mdp.is_eos[ids[-1]]))
            for content, text, completion, ids in parts
        ]

    def log_likelihoods(self, generations: Generations, pairs: Sequence[Pair]) -> FloatArray:
        """Log p(continuation | context) of n pairs, one per row, (n,) in nats.

        Raises:
            ScorerError: a row has more tokens than the model has positions.
        """
        from textgym.language_models.continuations import log_likelihoods

        self.check_lengths(generations, [len(context) + len(tokens) - 1 for context, tokens in pairs])
        contexts, continuations = [context for context, _ in pairs], [tokens for _, tokens in pairs]
        sums = log_likelihoods(self.model, contexts, continuations, self.tokenizer.vocab_size, self.batch_size)
        return sums.numpy()

    def check_lengths(self, generations: Generations, lengths: Sequence[int], what: str = "tokens") -> None:
        """Refuse, with a `ScorerError`, a row that needs more positions than the model has; `what` is counted."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for row, length in enumerate(lengths):
            if limit is not None and length > limit:
                raise ScorerError(
                    f"scorer {self.name!r}: row {generations.rows[row]} has {length} {what}, more than the {limit} "
                    f"that the model reads: {generations.texts[row]!r}"
                )

    def _shares_vocabulary(self, other: Tokenizer) -> bool:
        """Whether token ids of the env's mean the same to the model."""
        if self._compared is None or self._compared[0] is not other:
            vocabularies = [t.backend.get_vocab(with_added_tokens=True) for t in (self.tokenizer, other)]
            self._compared = other, vocabularies[0] == vocabularies[1]
        return self._compared[1]

    def _encode(self, content: Any, text: str, completion: str, ended: bool) -> Pair:
        prompt, leading = text[: len(text) - len(completion)], self._leading
        if not isinstance(content, str):
            try:
                prompt, leading = self.tokenizer.apply_chat_template(content), []  # the template wrote them
            except ValueError as error:
                raise ScorerError(f"scorer {self.name!r}: {error}") from error
        encoding = self.tokenizer.backend.encode(prompt + completion, add_special_tokens=False)
        ends = (end for _, end in encoding.offsets)
        seam = next((i for i, end in enumerate(ends) if end > len(prompt)), len(encoding.ids))
        context, tokens = leading + encoding.ids[:seam], encoding.ids[seam:]
        if ended or not tokens:
            if self.tokenizer.eos_token_id is None:
                raise ScorerError(
                    f"scorer {self.name!r}: the model's tokenizer has no end token, and the completion {completion!r} "
                    "ends in one"
                )
            tokens = [*tokens, self.tokenizer.eos_token_id]
        return context or self.start, tokens


def _load_tokenizer(model: Any, tokenizer: Any) -> Tokenizer:
    spec = model if tokenizer is None else tokenizer
    if tokenizer is not None or isinstance(model, str | Path):
        return make_tokenizer(str(spec) if isinstance(spec, Path) else spec)
    from textgym.language_models import load_tokenizer

    return from_pretrained(load_tokenizer(model))


def _leading_ids(tokenizer: Tokenizer) -> list[int]:
    """The special tokens that the tokenizer itself puts before a text, such as Llama's begin token."""
    encoding = tokenizer.backend.encode("a", add_special_tokens=True)
    pairs = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    return [i for i, _ in itertools.takewhile(lambda pair: pair[1], pairs)]
