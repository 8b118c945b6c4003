"""Files of adapters, which peft and transformers read alike.

A folder of adapters is also a transformers model. Where the model beneath comes from the hub, its id is kept, as peft
does. Any other name is ours alone ("tiny", "smollm2-q4"), may be moved or deleted (a folder), or may have other weights
by now (a loaded model), so the folder then holds the model beneath: `base/`, and in the root its `config.json` and an
index of weights that points there. transformers takes a folder with a `config.json` for a model with adapters on it,
wherever the folder lies.

The model beneath is never trained, so a run writes its weights once: `save_model` makes hard links to the files that
`remember_base` has seen, as long as these are the same, and writes them again where the file system has no links.
Deleting one checkpoint harms no other; writing into such a file in place would change it in all checkpoints of the run.
"""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from textgym.importing import require
from textgym.language_models.adapters.kinds import peft_type

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

ADAPTERS, PREFIX = "default", "base_model.model."  # peft's names
CONFIG, WEIGHTS, INDEX = "adapter_config.json", "adapter_model.safetensors", "model.safetensors.index.json"
WRAPPERS = re.compile(r"\.(base_layer|original_module|token_adapter)(?=\.)")  # peft's modules around those of the model


def save_model(model: PreTrainedModel, directory: Path, hub_id: str | None = None) -> None:
    """Write a model as transformers does; of one with adapters, these, and the model beneath.

    Args:
        model: with or without adapters.
        directory: an existing folder without a model.
        hub_id: where the weights beneath the adapters are on the hub, unchanged; None writes them.
    """
    if not getattr(model, "_hf_peft_config_loaded", False):
        model.save_pretrained(directory)
        return
    config = model.peft_config[ADAPTERS]
    if config.is_prompt_learning:
        tensors = model.base_model.virtual_tokens.state_dict()
    else:
        weights = require("peft", "agents").get_peft_model_state_dict(
            model, adapter_name=ADAPTERS, save_embedding_layers=False
        )
        tensors = {PREFIX + _saved_name(name): t.contiguous().clone() for name, t in weights.items()}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config.base_model_name_or_path = hub_id
    written = copy.copy(config)
    for name, value in vars(config).items():
        if isinstance(value, set):  # in an order that is the same in every process
            setattr(written, name, sorted(value))
    written.save_pretrained(str(directory))
    if hub_id is None:
        _save_base(model, directory)


def _saved_name(name: str) -> str:
    """A tensor's name in the file: without `.weight`, as peft has it, transformers loses the magnitudes of DoRA."""
    return f"{name}.weight" if name.endswith("lora_magnitude_vector") else name


def _save_base(model: PreTrainedModel, directory: Path) -> None:
    """Write the model beneath the adapters, or link its files where they are already."""
    base = directory / "base"
    if not _link_base(model, base):
        with torch.device("meta"):
            empty = type(model)(model.config)
        names = set(empty.state_dict())
        tensors = {bare: t for name, t in model.state_dict().items() if (bare := WRAPPERS.sub("", name)) in names}
        empty.save_pretrained(base, state_dict=tensors)
    for name in ("config.json", "generation_config.json"):
        if (base / name).is_file():
            (directory / name).write_bytes((base / name).read_bytes())
    index: dict[str, str] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            index |= {name: f"base/{file.name}" for name in tensors.keys()}  # noqa: SIM118
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1))


def remember_base(model: PreTrainedModel, directory: Path) -> None:
    """Note that a finished folder holds the model beneath the adapters: the next one need not write it again."""
    base = directory / "base"
    if base.is_dir():
        model.base_files = {file: _identity(file) for file in base.iterdir()}  # type: ignore[assignment]


def _link_base(model: PreTrainedModel, base: Path) -> bool:
    """Hard links to the files that `remember_base` saw; False, and nothing done, where that is not possible."""
    files: dict[Path, Any] = getattr(model, "base_files", {})
    try:
        if not files or any(_identity(file) != seen for file, seen in files.items()):
            return False
        base.mkdir()
        for file in files:
            os.link(file, base / file.name)
    except OSError:  # gone, or a file system without links
        for file in base.glob("*"):
            file.unlink()
        return False
    return True


def _identity(file: Path) -> tuple[int, int, int, int]:
    """What changes when a file is replaced or written to."""
    stat = file.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_config(directory: Path) -> PeftConfig:
    """The configuration of a folder's adapters, which can be trained further; how they began is over."""
    config = require("peft", "agents").PeftConfig.from_pretrained(str(directory))
    config.inference_mode = False  # peft writes True, and would freeze them
    if peft_type(config) == "ADALORA":
        config.rank_pattern = None  # `read_adapters` gives it all ranks
    if peft_type(config) == "PROMPT_TUNING":
        config.prompt_tuning_init = "RANDOM"  # the text and its tokenizer need not be there any more
    return config


def read_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Read the weights of a folder's adapters into a model that has adapters of the same shape.

    Raises:
        FileNotFoundError: the folder has no `adapter_model.safetensors`.
        ValueError: the file is damaged, lacks a tensor, or has one that the model lacks or has in another shape.
    """
    file = directory / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{str(directory)!r} holds no {WEIGHTS}, where its adapters should be")
    tokens = getattr(model.base_model, "virtual_tokens", None)
    try:
        stored = load_file(file, device=str(model.device))
        if tokens is None:
            weights = _with_pruned_ranks(directory, {name.removeprefix(PREFIX): t for name, t in stored.items()})
            result = require("peft", "agents").set_peft_model_state_dict(model, weights, adapter_name=ADAPTERS)
        else:
            result = tokens.load_state_dict(stored, strict=False)
    except SafetensorError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}") from error
    except KeyError as error:
        raise ValueError(f"{str(file)!r} lacks the tensor {error}") from error
    except RuntimeError as error:  # the shapes differ
        raise ValueError(f"{str(file)!r} does not fit the model: {' '.join(str(error).split())}") from error
    trained = {name for name, p in (tokens or model).named_parameters() if p.requires_grad}
    if missing := [name for name in result.missing_keys if name in trained]:
        raise ValueError(f"{str(file)!r} lacks the tensor {missing[0]!r}{_more(missing)}")
    if result.unexpected_keys:
        names = result.unexpected_keys
        raise ValueError(f"{str(file)!r} holds the tensor {names[0]!r}{_more(names)}, which the model lacks")


def _with_pruned_ranks(directory: Path, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """AdaLoRA's tensors with the ranks that peft left out, as zeros: in a model any of them may come back."""
    pattern = json.loads((directory / CONFIG).read_text(encoding="utf-8")).get("rank_pattern") or {}
    for name, kept in pattern.items():
        if not name.endswith(".lora_E"):  # LoRA's has ranks, by module
            return weights
        for letter in "AEB":
            key = f"{name.removesuffix('E')}{letter}"
            part = weights[key].T if letter == "B" else weights[key]
            whole = part.new_zeros(len(kept), part.shape[1])
            whole[torch.tensor(kept)] = part
            weights[key] = whole.T.contiguous() if letter == "B" else whole
    return weights


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def find_adapters(source: str, **hub: Any) -> Path | None:
    """The folder of the adapters at a path or a hub id, downloaded where need be; None where there are none."""
    from transformers.utils import cached_file, find_adapter_config_file

    config = find_adapter_config_file(source, **hub)
    if config is not None and not os.path.isdir(source):
        cached_file(source, WEIGHTS, **hub)
    return None if config is None else Path(config).parent


def adapter_base(directory: Path) -> str:
    """What `load_model` makes the base of saved adapters from: the folder `base` beside them, or the name they give.

    Raises:
        ValueError: they give none.
    """
    if (directory / "base").is_dir():
        return str(directory / "base")
    name = json.loads((directory / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not name:
        raise ValueError(
            f"the adapters in {str(directory)!r} do not say which model they belong to; load that model, and pass "
            f"peft.PeftModel.from_pretrained(model, {str(directory)!r}, is_trainable=True)"
        )
    return name
