"""Any transformers sequence-classification model as a scorer of prompt and completion: reward models above all.

The text is tokenised afresh by the reward model's own tokenizer. Left out: models that generate their verdict (write a
function), and several devices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textgym.scorers.base import Generations, Scorer, ScorerError
from textgym.scorers.classification import SequenceClassifier, label_index, paid, probability

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
        self.name = name
        self.classifier = SequenceClassifier(name, model, tokenizer, device, dtype, batch_size)
        self._label = label_index(name, self.classifier.model.config, label)

    def score(self, generations: Generations) -> torch.Tensor:
        """(n,) float32 logits or probabilities.

        Raises:
            ScorerError: a text is longer than the model reads, or a chat meets a tokenizer without a chat template.
        """
        logits = self.classifier.logits(generations, self._encode(generations), generations.texts)
        config = self.classifier.model.config
        raw = config.num_labels == 1 or config.problem_type == "regression"
        return paid(logits, self._label, "raw" if raw else probability(config))

    def _encode(self, generations: Generations) -> list[list[int]]:
        """Token ids of every row as the reward model reads it."""
        encoded, texts, tokenizer = [], generations.texts, self.classifier.tokenizer
        contents = generations.table.contents(generations.prompt_ids)
        some_chat = not all(isinstance(content, str) for content in contents)
        chats, replies = (generations.chats, generations.replies) if some_chat else ([], [])
        for row, content in enumerate(contents):
            if isinstance(content, str):
                encoded.append(tokenizer(texts[row])["input_ids"])
                continue
            if not tokenizer.chat_template:
                raise ScorerError(
                    f"scorer {self.name!r}: the prompts are chats, but its tokenizer has no chat template"
                )
            text = tokenizer.apply_chat_template(chats[row] + replies[row], tokenize=False)
            encoded.append(tokenizer(text, add_special_tokens=False)["input_ids"])  # the template wrote them
        return encoded
