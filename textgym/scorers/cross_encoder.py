"""Cross-encoders of sentence-transformers: one model reads a pair of texts together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from textgym.arguments import Count, check_argument
from textgym.scorers.base import Generations, Scorer, errors_of
from textgym.scorers.classification import label_index, paid, probability
from textgym.scorers.reading import To, counterparts_of
from textgym.scorers.sentence_models import limit_of, load_sentence_model, refuse_long, token_counts

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder as Encoder

Paid = Literal["raw", "probability"]


class CrossEncoder(Scorer):
    """What a cross-encoder says of a reference, or the prompt, and the completion, read together.

    The reference or the prompt is the first text of the pair and the completion the second, as a query comes before the
    passage that answers it. Of several references the one with the largest value counts. An empty completion is read as
    an empty text.

    Args:
        model: a directory, a hub id or a loaded `CrossEncoder`.
        to: `"reference"`, a column of the prompts, or `"prompt"`: the prompt itself, of a chat its last message.
        column: the prompts' column with the reference, a text or a list of texts.
        label: index or name of the label; required if the model has several, and only then.
        value: `"raw"` is the model's output itself; the library would by default apply a sigmoid to a single one, which
            is flat where the model is sure. `"probability"` is that sigmoid; of several outputs, the softmax.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: pairs per forward pass at most.
        name: the component's name in `info`.

    Range: any number, or [0, 1] for a probability; more is better.

    Cost: one forward pass of the model per pair that is not in the batch twice.

    Source: `CrossEncoder.predict` of sentence-transformers (Nogueira and Cho 2019, arXiv 1901.04085).

    Example: `{"name": "cross_encoder", "model": "cross-encoder/stsb-roberta-base", "to": "reference"}`

    Raises:
        ValueError: there is no such model, dtype or device, the model holds no trained head, the label does not fit it,
            or an argument has another value than those above; when asked, prompts without that column, or a value of
            another type in it.
        ScorerError: when asked, a pair is longer than the model reads.
        ImportError: sentence-transformers is missing.
    """

    def __init__(
        self,
        model: str | Path | Encoder,
        *,
        to: To = "reference",
        column: str = "reference",
        label: int | str | None = None,
        value: Paid = "raw",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "cross_encoder",
    ):
        check_argument(f"scorer {name!r}: to", to, To)
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: value", value, Paid)
        check_argument(f"scorer {name!r}: batch_size", batch_size, Count)
        self.name, self.to, self.column, self.batch_size = name, to, column, batch_size
        with errors_of(name):
            self.model: Any = load_sentence_model("CrossEncoder", model, device, dtype)
            _check_head(model, self.model)
        found = self.model.config
        outputs = SimpleNamespace(
            num_labels=self.model.num_labels, id2label=found.id2label, problem_type=found.problem_type
        )
        self._label = label_index(name, outputs, label)
        self._value = probability(outputs) if value == "probability" else "raw"
        self._limit = limit_of(self.model)

    def score(self, generations: Generations) -> list[float]:
        """(n,) values."""
        from torch.nn import Identity

        others = counterparts_of(generations, self.to, self.column)
        rows = [
            [(other, text) for other in listed] for text, listed in zip(generations.completions, others, strict=True)
        ]
        row_of = {pair: row for row, pairs in enumerate(rows) for pair in pairs}
        for pair, count in zip(row_of, token_counts(self.model, list(row_of)), strict=True):
            if count > self._limit:
                refuse_long(self.name, generations, row_of[pair], count, self._limit, pair)
        outputs = self.model.predict(
            list(row_of),
            batch_size=self.batch_size,
            activation_fn=Identity(),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        values = paid(outputs.float().cpu().view(len(row_of), -1), self._label, self._value).tolist()
        value_of = dict(zip(row_of, values, strict=True))
        return [max(value_of[pair] for pair in pairs) for pairs in rows]


def _check_head(name: Any, model: Any) -> None:
    """Refuse, with a ValueError, a classification model without a trained head: the library draws it at random."""
    from textgym.scorers.classifiers import load_classifier

    plain = type(model.model).__name__.endswith("ForSequenceClassification")
    if isinstance(name, str | Path) and plain and (not Path(name).is_dir() or (Path(name) / "config.json").is_file()):
        load_classifier(name, None, None)
