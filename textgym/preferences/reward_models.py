"""Models that give a text a score, with gradient: a head on a language model or an encoder, or a cosine of embeddings.

Both go through texts of similar length together, so that little is padded, and keep what the forward passes need for
one backward pass: a loss may compare any of the texts of a batch.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textgym.language_models.loader import no_progress_bars
from textgym.language_models.pieces import cheapest_slices, pass_cost
from textgym.preferences.comparisons import Item
from textgym.preferences.heads import add_head_adapters, load_padded_tokenizer, load_with_head
from textgym.scorers.classification import longest_text
from textgym.scorers.sentence_models import limit_of, load_sentence_model

CENTRED_ON = 1024
"""How many texts a reward is centred on, at most."""
RIDGE = 1e-4
"""Of the least squares with which a head without a bias is centred, relative to the mean square of a hidden state."""
TRAINING_COST = 8
"""How many times as much a pass costs, whatever its size, where its gradient is taken: it is added to that of every
weight."""
NO_ADAPTERS = "adapters_only=True, but all weights were trained; adapters come with lora={...}"


class ScoreModel(ABC):
    """A model that gives texts a score.

    Attributes:
        module: what is trained.
        tokenizer: of transformers.
        limit: how many tokens of a text it reads.
    """

    module: torch.nn.Module
    tokenizer: Any
    limit: float

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that are trained."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    @abstractmethod
    def tokens(self, items: Sequence[Item]) -> list[list[list[int]]]:
        """The token ids of the texts that the model reads of each item."""

    @abstractmethod
    def scores(self, tokens: Sequence[list[list[int]]]) -> torch.Tensor:
        """(n,) float32 scores of n items."""

    @abstractmethod
    def save(self, path: Path, adapters_only: bool) -> None:
        """Write the model and its tokenizer to an empty folder; of one with adapters, these and the head alone.

        Raises:
            ValueError: there are no adapters to write alone.
        """

    @abstractmethod
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(b, w) padded rows -> (b, D)."""

    def encode(self, text: str) -> list[int]:
        """The token ids of a text.

        Raises:
            ValueError: it is longer than the model reads.
        """
        ids = list(self.tokenizer(text, verbose=False)["input_ids"])
        if len(ids) > self.limit:
            raise ValueError(
                f"a text has {len(ids)} tokens, more than the {self.limit:g} that the model reads: {text!r}"
            )
        return ids

    def outputs(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """What `forward` says of n texts, (n, D) float32, in slices of similar lengths."""
        lengths = np.array([len(ids) for ids in rows])
        order = np.argsort(lengths, kind="stable")
        device, pad = self.device, self.tokenizer.pad_token_id
        cost = pass_cost(device.type) * (TRAINING_COST if torch.is_grad_enabled() else 1)
        outputs = []
        for start, end in cheapest_slices(lengths[order], None, cost)[1]:
            part, width = order[start:end], lengths[order[end - 1]]
            ids = torch.full((len(part), int(width)), pad)
            for row, number in enumerate(part):
                ids[row, : lengths[number]] = torch.tensor(rows[number])
            mask = torch.arange(int(width)) < torch.from_numpy(lengths[part])[:, None]  # (b, w)
            outputs.append(self.forward(ids.to(device), mask.long().to(device)).float())
        return torch.cat(outputs)[torch.from_numpy(np.argsort(order)).to(device)]


class RewardHead(ScoreModel):
    """A sequence-classification model of transformers with one output, the reward of prompt + completion.

    Args:
        model: a name, a directory or a hub id of a causal language model, an encoder or a reward model; or a loaded
            sequence-classification model with one output.
        tokenizer: of a loaded model; None is the model's own.
        lora: arguments of `peft.LoraConfig`: adapters and the head are trained; None trains all weights.
        device: where the model goes.

    Raises:
        ValueError: see `textgym.preferences.heads`.
    """

    def __init__(self, model: Any, tokenizer: Any = None, lora: Any = None, device: Any = "cpu"):
        loaded = load_with_head(model)
        self.tokenizer = load_padded_tokenizer(model, tokenizer, loaded)
        self.limit = longest_text(loaded, self.tokenizer)
        self.is_adapted = lora is not None
        adapted = loaded if lora is None else add_head_adapters(loaded, lora)
        self.module = adapted.to(device).eval()  # without dropout, as in TRL by default

    def tokens(self, items: Sequence[Item]) -> list[list[list[int]]]:
        """One text of each item, with special tokens, as the scorer `reward_model` reads it."""
        return [[self.encode(prompt + completion)] for prompt, completion in items]

    def scores(self, tokens: Sequence[list[list[int]]]) -> torch.Tensor:
        """(n,) rewards."""
        return self.outputs([ids for (ids,) in tokens])[:, 0]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(b, 1) logits."""
        return self.module(input_ids=input_ids, attention_mask=attention_mask).logits

    @torch.no_grad()
    def centre(self, tokens: Sequence[list[list[int]]]) -> None:
        """Let the mean reward of texts be 0, by a change of the head that leaves differences of rewards as they are.

        A head with a bias b gets b - mean. One without, as decoders have it, gets the weights w - mean v, where v
        solves the least squares v h = 1 over the hidden states h of the texts; v is scaled so that their mean becomes
        exactly 0. Differences change by mean (v h - v h'), which is small where the mean is.
        """
        head: Any = next(m for m in reversed(list(self.module.modules())) if isinstance(m, torch.nn.Linear))
        rows = [ids for (ids,) in tokens]
        hook = head.register_forward_hook(lambda module, inputs, output: inputs[0])
        try:
            hidden = self.outputs(rows)  # (n, H): what the head reads, in place of what it says
        finally:
            hook.remove()
        mean = head(hidden).mean()
        if head.bias is not None:
            head.bias -= mean
            return
        gram = hidden.T @ hidden / len(hidden)  # (H, H)
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        direction = torch.linalg.solve(gram + ridge, hidden.mean(0))  # (H,)
        head.weight -= mean * direction / (hidden @ direction).mean()

    def save(self, path: Path, adapters_only: bool) -> None:
        """Write them as transformers does, adapters as part of the weights; or adapters and head as peft does."""
        if adapters_only and not self.is_adapted:
            raise ValueError(NO_ADAPTERS)
        model: Any = self.module
        if adapters_only:
            model.save_pretrained(path, save_embedding_layers=False)
        else:
            merged = copy.deepcopy(model).merge_and_unload(safe_merge=True) if self.is_adapted else model
            with no_progress_bars():
                merged.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


class CosineEncoder(ScoreModel):
    """An encoder of sentence-transformers; the score is the cosine of the embeddings of prompt and completion.

    Args:
        model: a name, a directory or a hub id of an encoder, or a loaded `SentenceTransformer`; where it is a plain
            encoder of transformers, the embedding is the mean over its tokens.
        device: where the model goes.
    """

    def __init__(self, model: Any, device: Any = "cpu"):
        self.module = load_sentence_model("SentenceTransformer", model, device, None)
        self.tokenizer, self.limit = self.module.tokenizer, limit_of(self.module)

    def tokens(self, items: Sequence[Item]) -> list[list[list[int]]]:
        """Prompt and completion, each a text of its own, as the scorer `similarity` reads them.

        Raises:
            ValueError: an item has no prompt.
        """
        if without := [completion for prompt, completion in items if not prompt.strip()]:
            raise ValueError(
                f"the text {without[0]!r} has no prompt that it could be similar to; score='cosine' compares "
                "completions with their prompts, score='head' reads a text alone"
            )
        return [[self.encode(prompt), self.encode(completion)] for prompt, completion in items]

    def scores(self, tokens: Sequence[list[list[int]]]) -> torch.Tensor:
        """(n,) cosines; a text that occurs more than once is embedded once."""
        numbers: dict[tuple[int, ...], int] = {}
        index = torch.tensor([[numbers.setdefault(tuple(ids), len(numbers)) for ids in pair] for pair in tokens])
        embeddings = self.outputs([list(ids) for ids in numbers])[index.to(self.device)]  # (n, 2, D)
        return torch.nn.functional.cosine_similarity(embeddings[:, 0], embeddings[:, 1], -1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(b, D) embeddings."""
        return self.module({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]

    def save(self, path: Path, adapters_only: bool) -> None:
        """Write them as sentence-transformers does."""
        if adapters_only:
            raise ValueError(NO_ADAPTERS)
        self.module.save_pretrained(str(path), create_model_card=False)  # type: ignore[operator]
