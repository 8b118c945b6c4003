"""Models get adapters: new ones that are trained, or saved ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from textgym.importing import require
from textgym.language_models.adapters.files import ADAPTERS, read_adapters, read_config
from textgym.language_models.adapters.kinds import check_read, check_trained, peft_type

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

MERGE = "merge them first: python scripts/export.py FOLDER OUT"


def add_adapters(model: PreTrainedModel, config: PeftConfig) -> None:
    """Freeze a model and add trainable adapters to it, in place; they start as the identity, if not virtual tokens.

    Args:
        model: a loaded model without adapters.
        config: what `peft_config` returned.

    Raises:
        ValueError: the configuration does not fit the model, which is then as trainable as before; or the model has
            adapters already.
    """
    if adapters_of(model):
        raise ValueError(
            f"new adapters for a model that already has adapters: leave peft and lora out to train those further, or "
            f"{MERGE}"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        if config.is_prompt_learning:
            from textgym.language_models.adapters.virtual_tokens import add_virtual_tokens

            add_virtual_tokens(model, config)
        else:
            model.add_adapter(config, ADAPTERS)
    except ValueError as error:
        for parameter in trained:
            parameter.requires_grad = True
        name = f"{model.name_or_path!r} ({type(model).__name__})"
        raise ValueError(f"{peft_type(config)} does not fit the model {name}: {error}") from error


def num_virtual_tokens(model: PreTrainedModel) -> int:
    """How many virtual tokens stand before every row of a model (prompt and prefix tuning)."""
    tokens = getattr(model.base_model, "virtual_tokens", None)
    return 0 if tokens is None else len(tokens.prompt_embeddings)


def adapters_of(model: PreTrainedModel) -> dict[str, Any]:
    """The configurations of a model's adapters, by name; empty where it has none."""
    return getattr(model, "peft_config", {}) if getattr(model, "_hf_peft_config_loaded", False) else {}


def check_adapters(model: PreTrainedModel) -> None:
    """Refuse to train a model whose adapters cannot be trained further, with a ValueError that says why."""
    loaded = adapters_of(model)
    if len(loaded) > 1:
        raise ValueError(f"the model has {len(loaded)} adapters, {sorted(loaded)}; one can be trained: {MERGE}")
    for name, config in loaded.items():
        if name != ADAPTERS:
            raise ValueError(f"the model's adapters are named {name!r}; only those named {ADAPTERS!r} can be trained")
        try:
            check_trained(config, loaded=True)
        except ValueError as error:
            raise ValueError(f"the model has adapters that cannot be trained further: {error}; or {MERGE}") from error


def load_adapters(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Give a model the adapters of a folder that peft or `save_model` wrote, in place; they can be trained further.

    Raises:
        ValueError: the adapters are of a kind that cannot be read or belong to another model, or the file is damaged.
    """
    config = read_config(directory)
    check_read(config, directory)
    try:
        if config.is_prompt_learning:
            from textgym.language_models.adapters.virtual_tokens import install

            install(model, config)
        else:
            model.add_adapter(config, ADAPTERS)
    except ValueError as error:
        raise ValueError(f"the adapters of {str(directory)!r} do not fit {model.name_or_path!r}: {error}") from error
    read_adapters(model, directory)
    return model


def merge_adapters(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Make the adapters of a folder part of a model's weights; the model that was given is used up.

    Raises:
        ValueError: see `load_adapters`; or the merged model gives other logits than the model with adapters.
    """
    config = read_config(directory)
    check_read(config, directory)
    if config.is_prompt_learning:
        raise ValueError(
            f"the adapters of {str(directory)!r} are virtual tokens ({peft_type(config)}), for which no weight can "
            "stand; load the folder as it is"
        )
    adapted = require("peft", "agents").PeftModel(model, config, ADAPTERS, autocast_adapter_dtype=False)
    read_adapters(adapted.get_base_model(), directory)
    count = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(0, count, max(1, count // 16), device=model.device)[None, :16]
    with torch.no_grad():
        before = adapted.eval()(input_ids=ids).logits
        merged = adapted.merge_and_unload(safe_merge=True)
        gap, largest = float((merged(input_ids=ids).logits - before).abs().max()), float(before.abs().max())
    if not gap <= 1e-3 * largest:
        raise ValueError(
            f"the adapters of {str(directory)!r} cannot be merged: the logits change by {gap:.2g}, of {largest:.2g} at "
            "most. Where the head and the embedding share their weights, adapters on one of them would change both"
        )
    return merged


def unwrapped(model: Any) -> PreTrainedModel:
    """The transformers model with its adapters in it, of a `peft.PeftModel`; any other model itself.

    Raises:
        ValueError: the adapters are of a kind that cannot be read.
    """
    if not hasattr(model, "peft_config") or not hasattr(model, "get_base_model"):
        return model
    for config in model.peft_config.values():
        check_read(config, type(model).__name__)
    inner = model.get_base_model()
    if model.active_peft_config.is_prompt_learning:
        from textgym.language_models.adapters.virtual_tokens import install

        trained = model.prompt_encoder[model.active_adapter].embedding.weight.requires_grad
        weight = model.get_prompt_embedding_to_save(model.active_adapter)
        install(inner, model.active_peft_config, torch.nn.Parameter(weight, trained))
        return inner
    inner._hf_peft_config_loaded = True  # as if transformers had loaded the adapters
    return inner
