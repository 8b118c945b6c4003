"""Any transformers sequence-classification model as a scorer: reward models and classifiers alike.

A row's value does not depend on the rows beside it: rows are padded on the right and masked, and a decoder-style model,
which reads its value at the last token that is not padding, is never told that a row's last token is padding. Some
models read padding all the same (XLNet pads on the left, FNet has no mask, ConvBERT's convolutions look past it); a
trial when the scorer is built finds them, and their batches are rows of one length. The text is tokenised afresh by the
reward model's own tokenizer. Left out: models that generate their verdict (write a
function), and several devices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.arguments import Count, check_argument
from textgym.importing import did_you_mean
from textgym.scorers.base import Generations, Scorer, ScorerError, errors_of

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RewardModel(Scorer):
    """The value that a sequence-classification model gives to prompt + completion.

    A model with one output gives its logit, as TRL uses reward models. Of a model with several, `label` names one, and
    the model's `problem_type` says what is paid, as in transformers' text-classification pipeline:

    - `"regression"`: the output itself, as reward models with several attributes mean it;
    - `"multi_label_classification"`: its sigmoid, the probability of this label, which excludes no other;
    - otherwise its share in the softmax over all labels, a probability too.

    A text is tokenised with special tokens. Where the prompt is a list of chat messages, the completion is appended as
    the assistant's message, and the whole goes through the chat template of the reward model's tokenizer. An empty text
    without special tokens is read as one padding token.

    A decoder-style model reads its value at a text's last token. Where its config names a padding token, transformers
    passes over any of these at the end, also if the padding token is the end token and belongs to the text; the value
    is then the one before it, and so it is here.

    Args:
        model: a directory, a hub id or a loaded model. A directory may also hold adapters of a reward model, as peft
            and TRL save them: with the trained head.
        tokenizer: a directory, a hub id or a loaded tokenizer; by default the model's own.
        label: index or name of the label; required if the model has several, and only then.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: rows per forward pass.
        name: the component's name in `info`.

    Range: [0, 1] for probabilities; a logit or an attribute has the model's own.

    Cost: one forward pass of the model per text, in batches.

    Source: transformers' `AutoModelForSequenceClassification`; peft for adapters.

    Example: `{"name": "reward_model", "model": "path/to/model", "label": "POSITIVE"}`

    Raises:
        ValueError: the model has no trained head for sequence classification (a causal language model has none), the
            label does not fit it, the dtype is none of those above, the tokenizer is missing, has more tokens than the
            model, or has neither a padding nor an end token; `batch_size` is below 1.
        OSError: the directory or the hub holds no such model.
        ImportError: torch, transformers or peft is missing.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | PeftModel,
        *,
        tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
        label: int | str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "reward_model",
    ):
        check_argument(f"scorer {name!r}: batch_size", batch_size, Count)
        self.name = name
        from textgym.scorers.classifiers import load_classifier

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
        self._limit = _longest_text(self.model, self.tokenizer)
        self._pads = self._ignores_padding(self.tokenizer("a")["input_ids"] or self._pad_ids[:1])
        self._label = _label_index(name, self.model.config, label)

    def score(self, generations: Generations) -> torch.Tensor:
        """(n,) float32 logits or probabilities.

        Raises:
            ScorerError: a text is longer than the model reads, or a chat meets a tokenizer without a chat template.
        """
        import torch

        token_ids = self._encode(generations)
        values = torch.empty(len(token_ids))
        for batch in self._batches([len(ids) for ids in token_ids]):
            values[batch] = self._values(self._logits([token_ids[row] for row in batch]))
        return values

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Rows that go through the model together: of similar lengths, so that there is little padding, or of one."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        for _, group in itertools.groupby(order, key=lambda row: 0 if self._pads else lengths[row]):
            rows = list(group)
            yield from (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))

    def _encode(self, generations: Generations) -> list[list[int]]:
        """Token ids of every row as the reward model reads it, never empty."""
        encoded, texts = [], generations.texts
        contents = generations.table.contents(generations.prompt_ids)
        some_chat = not all(isinstance(content, str) for content in contents)
        chats, replies = (generations.chats, generations.replies) if some_chat else ([], [])
        for row, content in enumerate(contents):
            if isinstance(content, str):
                ids = self.tokenizer(texts[row])["input_ids"]
            else:
                if not self.tokenizer.chat_template:
                    raise ScorerError(
                        f"scorer {self.name!r}: the prompts are chats, but its tokenizer has no chat template"
                    )
                text = self.tokenizer.apply_chat_template(chats[row] + replies[row], tokenize=False)
                ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]  # the template wrote them
            if len(ids) > self._limit:
                raise ScorerError(
                    f"scorer {self.name!r}: row {generations.rows[row]} has {len(ids)} tokens, more than the "
                    f"{self._limit} that the model reads: {texts[row]!r}"
                )
            encoded.append(ids or self._pad_ids[:1])
        return encoded

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
                f"scorer {self.name!r}: the {type(self.model).__name__} is no reward model. For {len(rows)} texts its "
                f"logits have the shape {shape}, not {len(rows), config.num_labels}; a causal language model, say, has "
                "no head for that"
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

    def _values(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, labels) logits -> (n,) what is paid for them."""
        problem = self.model.config.problem_type
        if logits.shape[1] > 1 and problem != "regression":
            logits = logits.sigmoid() if problem == "multi_label_classification" else logits.softmax(-1)
        return logits[:, self._label]


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


def _label_index(name: str, config: Any, label: int | str | None) -> int:
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


def _longest_text(model: Any, tokenizer: Any) -> int:
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
