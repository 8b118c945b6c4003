"""Low-rank adapters (LoRA; Hu et al. 2021) through peft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textgym.importing import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    model.requires_grad_(False)
    model.add_adapter(lora)
