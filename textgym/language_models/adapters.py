"""Low-rank adapters (LoRA; Hu et al. 2021) through peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from textgym.importing import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTERS, PREFIX = "default", "base_model.model."  # peft's names


def add_lora(model: PreTrainedModel, lora: Any) -> None:
    """Freeze a model and add trainable adapters to it, in place; they start as the identity.

    Args:
        model: a loaded model without adapters.
        lora: arguments of `peft.LoraConfig`, or one. All linear layers but the head are adapted, unless
            `target_modules` says otherwise.

    Raises:
        ValueError: the arguments are not peft's, or name no module of the model.
        ImportError: peft is missing.
    """
    peft = require("peft", "agents")
    if isinstance(lora, dict):
        try:
            lora = peft.LoraConfig(**{"target_modules": "all-linear", **lora})
        except TypeError as error:
            raise ValueError(f"lora={lora}: {error}; accepted are the arguments of peft.LoraConfig") from error
    if not isinstance(lora, peft.LoraConfig):
        raise ValueError(f"lora is {lora!r}; accepted are a dict of peft.LoraConfig's arguments, or a LoraConfig")
    if lora.lora_dropout:
        raise ValueError("lora_dropout must be 0: log-probabilities in sampling and in training must be the same")
    for name, neutral in (("bias", ("none",)), ("modules_to_save", (None,)), ("init_lora_weights", (True, "gaussian"))):
        if getattr(lora, name) not in neutral:
            raise ValueError(
                f"{name}={getattr(lora, name)!r} changes the model beneath the adapters, which is the reference; "
                f"accepted are {list(neutral)}"
            )
    model.requires_grad_(False)
    model.add_adapter(lora, ADAPTERS)


def save_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Write adapters as peft does, without looking the model beneath up on the hub, as `save_pretrained` would.

    Args:
        model: it has adapters from `add_lora`.
        directory: gets `adapter_config.json` and `adapter_model.safetensors`.
    """
    peft = require("peft", "agents")
    weights = peft.get_peft_model_state_dict(model, adapter_name=ADAPTERS, save_embedding_layers=False)
    save_file({PREFIX + n: t.contiguous() for n, t in weights.items()}, directory / "adapter_model.safetensors")
    model.peft_config[ADAPTERS].save_pretrained(str(directory))


def load_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Read what `save_adapters` wrote into a model that has adapters of the same shape."""
    peft = require("peft", "agents")
    weights = load_file(directory / "adapter_model.safetensors", device=str(model.device))
    stripped = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    result = peft.set_peft_model_state_dict(model, stripped, adapter_name=ADAPTERS)
    if result.unexpected_keys:
        raise ValueError(f"{str(directory)!r} holds adapters that the model lacks: {result.unexpected_keys}")
