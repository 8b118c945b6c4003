"""Loading sequence-classification models: whole ones, and LoRA ones as peft and TRL save them.

A head that the files do not hold would be drawn at random, and its rewards would be noise that looks like rewards. So
what transformers reports as missing is refused here, unless saved adapters bring it along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.arguments import check_argument
from textgym.importing import require
from textgym.language_models.loader import (
    loading,
    pretrained_arguments,
    resolve,
    saved_adapters,
    torch_dtype,
    weights_arguments,
)

if TYPE_CHECKING:
    import torch

PREFIX = "base_model.model."
"""What peft puts before the names of the tensors that it saves."""


def load_classifier(model: Any, device: str | torch.device | None, dtype: str | torch.dtype | None) -> Any:
    """A sequence-classification model in eval mode.

    Args:
        model: a directory, a hub id or a loaded model; a directory may hold adapters with their head.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: see `textgym.language_models.load_model`; None is float32, or what a loaded model has.

    Raises:
        ValueError: nothing answers to the name, the files hold no head, or one that does not fit, the dtype is not one
            of those that `load_model` accepts, or this machine has no such device.
        FileNotFoundError: a path leads to no model.
        ImportError: torch, transformers or peft is missing.
    """
    torch = require("torch", "agents")
    require("transformers", "agents")
    from textgym.language_models.devices import ModelDevice

    resolved = torch_dtype(dtype)
    check_argument("device", device, ModelDevice | None)
    if isinstance(model, torch.nn.Module):
        if not hasattr(model, "config"):
            raise ValueError(f"the {type(model).__name__} is no model of transformers (it has no config)")
        return model.to(device=device, dtype=resolved).eval()
    source = resolve(model)
    adapters = saved_adapters(model, source, pretrained_arguments(source))
    load, files = (load_whole, model) if adapters is None else (_load_adapted, adapters)
    return load(files, resolved or torch.float32).to(device or "cpu").eval()


def load_whole(
    model: str | Path, dtype: torch.dtype, may_lack: Callable[[str, Any], bool] = lambda *_: False, **config: Any
) -> Any:
    """The model that a name or a directory stands for.

    Args:
        model: a directory or a hub id.
        dtype: of its weights.
        may_lack: whether a tensor of the model may be missing, by its name and the model: one that adapters will bring
            along, or that will be trained.
        config: changes to its config.

    Raises:
        ValueError: another tensor is missing, or has another shape than the config says.
    """
    transformers, source = require("transformers", "agents"), resolve(model)
    with loading(model, source), _no_load_report():
        loaded, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **weights_arguments(pretrained_arguments(source)),
            **config,
        )
    if missing := sorted(name for name in report["missing_keys"] if not may_lack(name, loaded)):
        raise ValueError(
            f"{str(model)!r} is no sequence classifier: it holds no {missing}, so that this head of a "
            f"{type(loaded).__name__} would be drawn at random; a causal language model, say, has none. Accepted are "
            "models that were trained with it"
        )
    if report["mismatched_keys"]:
        key, stored, wanted = sorted(report["mismatched_keys"])[0]
        raise ValueError(
            f"{str(model)!r} does not fit its own config.json: {key} has the shape {tuple(stored)}, not {tuple(wanted)}"
        )
    return loaded


def _load_adapted(folder: Path, dtype: torch.dtype) -> Any:
    """The model beneath saved adapters, with these and the head that was trained beside them."""
    require("peft", "agents")
    from peft.utils.save_and_load import load_peft_weights

    from textgym.language_models.adapters import adapter_base, load_adapters

    base = adapter_base(folder)
    saved = {name.removeprefix(PREFIX): t for name, t in load_peft_weights(str(folder), device="cpu").items()}
    outputs = {len(saved[name]) for name in _sized_by_labels(base) if name in saved}  # bias and weight say the same
    loaded = load_whole(
        base, dtype, lambda name, _: name in saved, **({"num_labels": outputs.pop()} if outputs else {})
    )
    return load_adapters(loaded, folder)


def _sized_by_labels(base: str) -> list[str]:
    """The names of the parameters whose first axis is the number of labels, found by building the model twice."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shapes = []
    for num_labels in (1, 2):
        source = resolve(base)
        config = AutoConfig.from_pretrained(source, **pretrained_arguments(source), num_labels=num_labels)
        with torch.device("meta"):  # nothing is allocated
            empty = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        shapes.append({name: parameter.shape for name, parameter in empty.named_parameters()})
    return [name for name, shape in shapes[0].items() if shape != shapes[1][name]]


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Hide transformers' table of missing tensors, which is read here, and restore the user's setting afterwards."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
