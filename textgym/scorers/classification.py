"""A sequence-classification model with its tokenizer: texts as token ids in, logits out.

A row's logits do not depend on the rows beside it: rows are padded on the right and masked, and a decoder-style model,
which reads its value at the last token that is not padding, is never told that a row's last token is padding. Some
models read padding all the same (XLNet pads on the left, FNet has no mask, ConvBERT's convolutions look past it); a
trial when the model is loaded finds them, and their batches are rows of one length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textgym.arguments import Count, check_argument
from textgym.importing import did_you_mean
from textgym.scorers.base import Generations, ScorerError, errors_of

if TYPE_CHECKING:
    import torch

Value = Literal["raw", "sigmoid", "softmax"]
"""What is paid for logits: themselves, or a probability."""


class SequenceClassifier:
    """A model for sequence classification, as scorers use it.

    Attributes:
        model: the model, in eval mode.
        tokenizer: its transformers tokenizer.

    Args:
        name: the scorer's, for errors.
        model: a directory, a hub id or a loaded model; see `load_classifier`.
        tokenizer: a directory, a hub id or a loaded tokenizer; None is the model's own.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: see `load_classifier`.
        batch_size: rows per forward pass at most.

    Raises:
        ValueError: the model has no trained head for sequence classification, the dtype or the device does not exist,
            the tokenizer is missing, has more tokens than the model, or has neither a padding nor an end token;
            `batch_size` is below 1.
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
        from textgym.scorers.classifiers import load_classifier

        self.name = name
        with errors_of(name):
            self.tokenizer: Any = _load_tokenizer(model, tokenizer)
            self.model = load_classifier(model, device, dtype)
        embedded = self.model.get_input_embeddings().weight.shape[0]
        if len(self.tokenizer) > embedded:
            raise ValueError(
                f"scorer {name!r}: the tokenizer has {len(self.tokenizer)} tokens, the model embeds {embedded}; they "
                "do not belong together"
            )
        self.batch_size = min(batch_size, embedded - 1)  # so that there is a token that ends none of a batch's rows
        self._pad_ids = _pad_ids(name, self.model.config, self.tokenizer, embedded, self.batch_size)
        self._limit = longest_text(self.model, self.tokenizer)
        self._pads = self._ignores_padding(self.tokenizer("a")["input_ids"] or self._pad_ids[:1])

    def logits(self, generations: Generations, token_ids: list[list[int]], texts: list[str]) -> torch.Tensor:
        """(n, labels) float32 logits of n rows of token ids, one per generation, on the CPU; no tokens read as padding.

        Args:
            generations: the n rows, for errors.
            token_ids: what the model reads of each.
            texts: the same as text, for errors.

        Raises:
            ScorerError: a row has more tokens than the model reads.
        """
        import torch

        for row, ids in enumerate(token_ids):
            if len(ids) > self._limit:
                raise ScorerError(
                    f"scorer {self.name!r}: row {generations.rows[row]} has {len(ids)} tokens, more than the "
                    f"{self._limit} that the model reads: {texts[row]!r}"
                )
        values = torch.empty(len(token_ids), self.model.config.num_labels)
        for batch in self.batches([len(ids) for ids in token_ids]):
            values[batch] = self._logits([token_ids[row] or self._pad_ids[:1] for row in batch])
        return values

    def batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Rows that go through the model together: of similar lengths, so that there is little padding, or of one."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        for _, group in itertools.groupby(order, key=lambda row: 0 if self._pads else lengths[row]):
            rows = list(group)
            yield from (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))

    def _logits(self, rows: list[list[int]]) -> torch.Tensor:
        """(n, labels) float32 logits of n rows of token ids, on the CPU."""
        import torch

        config, width, ends = self.model.config, max(map(len, rows)), {row[-1] for row in rows}
        pad = next((i for i in self._pad_ids if i not in ends), self._pad_ids[0])
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])  # (n, width)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        with torch.inference_mode(), _padding_is(config.get_text_config(), pad):
            logits: Any = getattr(self.model(input_ids=ids.to(device), attention_mask=mask.to(device)), "logits", None)
        shape = None if logits is None else tuple(logits.shape)
        if shape != (len(rows), config.num_labels):
            raise ValueError(
                f"scorer {self.name!r}: the {type(self.model).__name__} is no sequence classifier. For "
                f"{len(rows)} texts its logits have the shape {shape}, not {len(rows), config.num_labels}; a causal "
                "language model, say, has no head for that"
            )
        return logits.float().cpu()

    def _ignores_padding(self, ids: list[int]) -> bool:
        """Whether a text has the same logits alone and padded beside a longer one. Refuses what is no classifier."""
        import torch

        alone, more = self._logits([ids]), min(8, self._limit - len(ids))
        if more < 1 or self.batch_size == 1:  # there is no longer text, or nothing beside it
            return True
        padded = self._logits([ids, ids[:1] * more + ids])[:1]
        tolerance = max(1e-3, 16 * torch.finfo(self.model.dtype).eps)  # that of the arithmetic
        return bool((padded - alone).abs().max() <= tolerance * alone.abs().max())


def label_index(name: str, config: Any, label: int | str | None) -> int:
    """The column of the logits that `label` names."""
    count, known = config.num_labels, {name: index for index, name in config.id2label.items()}
    if count == 1:
        if label is not None:
            raise ValueError(
                f"scorer {name!r}: the model has a single output, so there is no label {label!r} to choose"
            )
        return 0
    if label is None:
        raise ValueError(f"scorer {name!r}: the model has {count} labels; choose one with label=..., of {known}")
    index = known.get(label) if isinstance(label, str) else label
    if not isinstance(index, int | np.integer) or isinstance(index, bool) or not 0 <= index < count:
        raise ValueError(
            f"scorer {name!r}: the model has no label {label!r}{did_you_mean(str(label), known)}; it has {known}"
        )
    return int(index)


def probability(config: Any) -> Value:
    """How the logits of a model become probabilities, as transformers' text-classification pipeline takes it."""
    several = config.num_labels > 1 and config.problem_type != "multi_label_classification"
    return "softmax" if several else "sigmoid"


def paid(logits: torch.Tensor, label: int, value: Value) -> torch.Tensor:
    """(n, labels) logits -> (n,) what is paid for one label."""
    if value == "sigmoid":
        logits = logits.sigmoid()
    return (logits.softmax(-1) if value == "softmax" else logits)[:, label]


@contextmanager
def _padding_is(config: Any, pad_id: int) -> Iterator[None]:
    """Tell a model for a while which token is padding."""
    own = config.pad_token_id
    config.pad_token_id = pad_id
    try:
        yield
    finally:
        config.pad_token_id = own


def _load_tokenizer(model: Any, tokenizer: Any) -> Any:
    """The tokenizer of the reward model, loaded or found beside the model."""
    from textgym.language_models import load_tokenizer

    if tokenizer is None and not isinstance(model, str | Path):
        raise ValueError("a loaded model needs its tokenizer too; pass tokenizer=...")
    if tokenizer is None or isinstance(tokenizer, str | Path):
        return load_tokenizer(model if tokenizer is None else tokenizer)
    if not callable(getattr(tokenizer, "apply_chat_template", None)):
        raise ValueError(f"tokenizer is {tokenizer!r}; it must be a directory, a hub id or a tokenizer of transformers")
    return tokenizer


def _pad_ids(name: str, config: Any, tokenizer: Any, embedded: int, batch_size: int) -> list[int]:
    """What rows may be padded with, the first choice first.

    The token that the model's config names, and no other; an id that is not in the vocabulary (-1 in some) names none.
    Else the tokenizer's padding token, its end token (as TRL does), or any other: a model without a padding token reads
    its value at a text's last token, whatever this is, so that rows are padded with a token that ends none of them.
    """
    own, *others = (
        pad_id if pad_id is not None and 0 <= pad_id < embedded else None
        for pad_id in (config.get_text_config().pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    )
    if own is not None:
        return [own]
    known = [pad_id for pad_id in others if pad_id is not None]
    if not known:
        raise ValueError(
            f"scorer {name!r}: the tokenizer has neither a padding nor an end token; set tokenizer.pad_token"
        )
    return [*known, *range(batch_size + 1)]


def longest_text(model: Any, tokenizer: Any) -> int:
    """How many tokens of a text the model reads: what its tokenizer says, or its positions, if these are fewer."""
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions > 0:  # XLNet has -1, and no limit
        limits.append(positions)
    for path, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if path.endswith(".position_embeddings") and padding is not None:  # RoBERTa and its kin count from behind it
            limits.append(len(module.weight) - padding - 1)
    return min(limits)
