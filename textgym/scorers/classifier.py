"""Any text classifier of transformers as a scorer of the completion: toxicity, topic, formality, language."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from textgym.arguments import check_argument
from textgym.importing import require
from textgym.scorers.base import Generations, Scorer
from textgym.scorers.classification import SequenceClassifier, Value, label_index, paid, probability
from textgym.scorers.reading import Of, texts_of

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextClassificationPipeline

Paid = Literal["probability", "raw"]


class Classifier(Scorer):
    """What a text classifier says of one label: its probability, or the raw output.

    By default it is what transformers' text-classification pipeline reports, as the model's `problem_type` says:

    - `"regression"`: the output itself;
    - `"multi_label_classification"`, and models with a single output: its sigmoid, the probability of this label, which
      excludes no other;
    - otherwise its share in the softmax over all labels.

    The text is tokenised with the classifier's own tokenizer and special tokens. It is read whole or refused, even if
    a pipeline would cut it. An empty text without special tokens is read as one padding token.

    Args:
        model: a directory (also one of adapters with their head), a hub id, a loaded model, or a pipeline, whose model,
            tokenizer and `function_to_apply` are used.
        tokenizer: a directory, a hub id or a loaded tokenizer; by default the model's own.
        label: index or name of the label; required if the model has several, and only then.
        value: `"probability"`, or `"raw"`: the output itself, a classifier's logit, which unlike a probability goes on
            growing where the classifier is sure; None is the pipeline's rule above.
        of: `"completion"`, or `"text"`, which is prompt and completion.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: rows per forward pass at most.
        name: the component's name in `info`.

    Range: [0, 1] for a probability, otherwise any number.

    Cost: one forward pass of the model per text.

    Source: the models of `transformers.AutoModelForSequenceClassification`, and its text-classification pipeline.

    Example: `{"name": "classifier", "model": "s-nlp/roberta_toxicity_classifier", "label": "neutral", "value": "raw"}`

    Raises:
        ValueError: the model has no trained head for sequence classification, the label does not fit it, a probability
            is asked of a regression, the tokenizer does not belong to the model, or an argument has another value than
            those above.
        ScorerError: when asked, a text is longer than the model reads.
        ImportError: torch, transformers or peft is missing.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | PeftModel | TextClassificationPipeline,
        *,
        tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
        label: int | str | None = None,
        value: Paid | None = None,
        of: Of = "completion",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "classifier",
    ):
        check_argument(f"scorer {name!r}: value", value, Paid | None)
        check_argument(f"scorer {name!r}: of", of, Of)
        self.name, self.of = name, of
        function, loaded = None, model
        pipelines = require("transformers", "agents")
        if not isinstance(model, str | Path) and isinstance(model, pipelines.TextClassificationPipeline):
            function, loaded, tokenizer = _function_of(model), model.model, tokenizer or model.tokenizer
        self.classifier = SequenceClassifier(name, loaded, tokenizer, device, dtype, batch_size)
        self._label = label_index(name, self.classifier.model.config, label)
        self._value = self._chosen(value, function)

    def score(self, generations: Generations) -> torch.Tensor:
        """(n,) float32 probabilities or raw outputs."""
        texts = texts_of(generations, self.of)
        token_ids = [self.classifier.tokenizer(text)["input_ids"] for text in texts]
        return paid(self.classifier.logits(generations, token_ids, texts), self._label, self._value)

    def _chosen(self, value: Paid | None, function: Value | None) -> Value:
        config = self.classifier.model.config
        regression = config.problem_type == "regression"
        if value == "probability" and regression:
            raise ValueError(
                f"scorer {self.name!r}: the model is a regression and has no probabilities; value='raw' pays its output"
            )
        if value is None and function is not None:
            return function
        return "raw" if value == "raw" or regression else probability(config)


def _function_of(pipeline: Any) -> Value | None:
    """What a pipeline was told to apply to the logits; None where that is left to the model."""
    function = pipeline._postprocess_params.get("function_to_apply")
    function = getattr(function, "value", function)
    return "raw" if function == "none" else function
