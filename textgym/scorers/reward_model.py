"""Any transformers sequence-classification model as a scorer: reward models and classifiers alike.

A row's value does not depend on the rows beside it: rows are padded on the right and masked, and a decoder-style model
is told which token is padding, so that it reads its value at the last real token. The text is tokenised afresh by the
reward model's own tokenizer. Left out: models that generate their verdict (write a function), and several devices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.importing import did_you_mean
from textgym.scorers.base import Generations, Scorer, ScorerError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RewardModel(Scorer):
    """The value that a sequence-classification model gives to prompt + completion.

    A model with one output gives its logit, as TRL uses reward models. A model with several gives the probability of
    `label`, as transformers' text-classification pipeline reports it: softmax, or sigmoid where the model's
    `problem_type` is `"multi_label_classification"`.

    A text is tokenised with special tokens. Where the prompt is a list of chat messages, the completion is appended as
    the assistant's message, and the whole goes through the chat template of the reward model's tokenizer. An empty text
    without special tokens is read as one padding token.

    Args:
        model: a directory, a hub id or a loaded model.
        tokenizer: a directory, a hub id or a loaded tokenizer; by default the model's own.
        label: index or name of the label; required if the model has several, and only then.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: rows per forward pass.
        name: the component's name in `info`.

    Raises:
        ValueError: the label does not fit the model, the tokenizer is missing, has more tokens than the model, or has
            neither a padding nor an end token; `batch_size` is below 1.
        OSError: the directory or the hub holds no such model.
        ImportError: torch or transformers is missing.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
        label: int | str | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        batch_size: int = 32,
        name: str = "reward_model",
    ):
        if batch_size < 1:
            raise ValueError(f"scorer {name!r}: batch_size is {batch_size}; it must be at least 1")
        self.name = name
        self.batch_size = batch_size
        self.tokenizer: Any = _load_tokenizer(name, model, tokenizer)
        self.model = _load_classifier(model, device, dtype)
        self._label = _label_index(name, self.model.config, label)
        self._pad_id = _pad_id(name, self.model.config, self.tokenizer)
        if len(self.tokenizer) > (size := self.model.get_input_embeddings().weight.shape[0]):
            raise ValueError(
                f"scorer {name!r}: the tokenizer has {len(self.tokenizer)} tokens, the model embeds {size}; they do "
                "not belong together"
            )

    def score(self, generations: Generations) -> torch.Tensor:
        """(n,) float32 logits or probabilities.

        Raises:
            ScorerError: a text is longer than the model reads, or a chat meets a tokenizer without a chat template.
        """
        import torch

        token_ids = self._encode(generations)
        order = sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))  # similar lengths, little padding
        values = torch.empty(len(token_ids))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            values[batch] = self._forward([token_ids[row] for row in batch])
        return values

    def _encode(self, generations: Generations) -> list[list[int]]:
        """Token ids of every row as the reward model reads it, never empty."""
        encoded = []
        contents = generations.table.contents(generations.prompt_ids)
        for row, (content, completion) in enumerate(zip(contents, generations.completions, strict=True)):
            if isinstance(content, str):
                ids = self.tokenizer(generations.prompts[row] + completion)["input_ids"]
            else:
                if not self.tokenizer.chat_template:
                    raise ScorerError(
                        f"scorer {self.name!r}: the prompts are chats, but its tokenizer has no chat template"
                    )
                chat = [*content, {"role": "assistant", "content": completion}]
                text = self.tokenizer.apply_chat_template(chat, tokenize=False)
                ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]  # the template wrote them
            if len(ids) > (limit := self.tokenizer.model_max_length):
                raise ScorerError(
                    f"scorer {self.name!r}: row {generations.rows[row]} has {len(ids)} tokens, more than the {limit} "
                    f"that its tokenizer allows: {generations.texts[row]!r}"
                )
            encoded.append(ids or [self._pad_id])
        return encoded

    def _forward(self, rows: list[list[int]]) -> torch.Tensor:
        """(n,) values of n rows of token ids, on the CPU."""
        import torch

        width = max(map(len, rows))
        ids = torch.tensor([row + [self._pad_id] * (width - len(row)) for row in rows])  # (n, width)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        with torch.inference_mode():
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()  # (n, labels)
        if self.model.config.num_labels == 1:
            return logits[:, 0].cpu()
        several = self.model.config.problem_type == "multi_label_classification"
        return (logits.sigmoid() if several else logits.softmax(-1))[:, self._label].cpu()


def _load_tokenizer(name: str, model: Any, tokenizer: Any) -> Any:
    """The tokenizer of the reward model, loaded or found beside the model."""
    from textgym.language_models import load_tokenizer

    if tokenizer is None and not isinstance(model, str | Path):
        raise ValueError(f"scorer {name!r}: a loaded model needs its tokenizer too; pass tokenizer=...")
    if tokenizer is None or isinstance(tokenizer, str | Path):
        return load_tokenizer(model if tokenizer is None else tokenizer)
    return tokenizer


def _load_classifier(model: Any, device: Any, dtype: str | None) -> Any:
    """The model in eval mode; a loaded one moves only where `device` or `dtype` say so."""
    if isinstance(model, str | Path):
        from transformers import AutoModelForSequenceClassification

        loaded = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype or "float32")
        return loaded.to(device or "cpu").eval()
    import torch

    return model.to(device=device, dtype=getattr(torch, dtype) if dtype else None).eval()


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
    if index is None or not 0 <= index < count:
        raise ValueError(
            f"scorer {name!r}: the model has no label {label!r}{did_you_mean(str(label), known)}; it has {known}"
        )
    return index


def _pad_id(name: str, config: Any, tokenizer: Any) -> int:
    """The padding id; the end token pads where there is none, as TRL does.

    A decoder-style model takes its value from the last token that is not `config.pad_token_id`, so the config must know
    what rows are padded with.
    """
    text_config = config.get_text_config()
    for pad_id in (text_config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if pad_id is not None:
            text_config.pad_token_id = pad_id
            return pad_id
    raise ValueError(f"scorer {name!r}: the tokenizer has neither a padding nor an end token; set tokenizer.pad_token")
