"""Sequence-classification models with one output, to be trained: a new head on any model, and adapters beside it."""

from __future__ import annotations

from typing import Any

import torch

from textgym.embedded import EMBEDDED
from textgym.importing import require
from textgym.language_models.loader import load_tokenizer, pretrained_arguments, resolve
from textgym.language_models.packaged import PACKAGED
from textgym.scorers.classifiers import load_whole


def load_with_head(model: Any) -> Any:
    """A model with one output, in float32; where the files hold no head, it is drawn at random, as transformers does.

    Args:
        model: a name, a directory or a hub id of a causal language model, an encoder or a reward model; or a loaded
            sequence-classification model with one output.

    Raises:
        ValueError: the model has a head for something else, lacks other weights than the head's, or nothing answers to
            the name.
        FileNotFoundError: a path leads to no model.
    """
    if isinstance(model, torch.nn.Module):
        _check_outputs(type(model).__name__, getattr(model, "config", None), f"the loaded {type(model).__name__}")
        return model
    transformers, source = require("transformers", "agents"), resolve(model)
    config = transformers.AutoConfig.from_pretrained(source, **pretrained_arguments(source))
    for architecture in config.architectures or ():
        if architecture.endswith("ForSequenceClassification"):
            _check_outputs(architecture, config, f"the {architecture} {str(model)!r}")
    loaded = load_whole(model, torch.float32, _is_head, num_labels=1)
    for parameter in loaded.parameters():  # out of the mapped file, where it is not aligned: slower, other last bits
        parameter.data = parameter.data.clone()
    if model in (*EMBEDDED, *PACKAGED):  # what saved adapters name as their model
        loaded.name_or_path = loaded.config.name_or_path = str(model)
    return loaded


def load_padded_tokenizer(model: Any, tokenizer: Any, loaded: Any) -> Any:
    """The tokenizer of a model, which is told its padding token; the end token where there is none, as TRL does.

    Args:
        model: what the model was loaded from.
        tokenizer: a directory, a hub id or a loaded tokenizer; None is the model's own.
        loaded: the model.

    Raises:
        ValueError: there is neither a padding nor an end token, the model embeds fewer tokens than the tokenizer has,
            or a loaded model came without its tokenizer.
    """
    if isinstance(model, torch.nn.Module) and tokenizer is None:
        raise ValueError("a loaded model needs its tokenizer too; pass tokenizer=...")
    if tokenizer is None or isinstance(tokenizer, str):
        tokenizer = load_tokenizer(model if tokenizer is None else tokenizer)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has neither a padding nor an end token; set tokenizer.pad_token")
        tokenizer.pad_token = tokenizer.eos_token
    embedded = loaded.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > embedded:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {embedded}; they do not belong together"
        )
    loaded.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return tokenizer


def add_head_adapters(model: Any, lora: Any) -> Any:
    """A `peft.PeftModel` whose adapters, head and pooler are trained, and nothing else.

    Args:
        model: a sequence-classification model.
        lora: a dict of arguments of `peft.LoraConfig`; all linear layers are adapted unless `target_modules` says
            otherwise.

    Raises:
        ValueError: the arguments are not peft's, or name no module of the model.
    """
    peft = require("peft", "agents")
    if not isinstance(lora, dict):
        raise ValueError(
            f"lora is {lora!r}; accepted is a dict of the arguments of peft.LoraConfig, such as {{'r': 8}}"
        )
    others = [(name, module) for name, module in model.named_children() if module is not model.base_model]
    head = [name for name, module in others if any(True for _ in module.parameters())]
    pooler = ["pooler"] if getattr(model.base_model, "pooler", None) is not None else []
    fixed = {"task_type": "SEQ_CLS", "modules_to_save": head + pooler}
    if repeated := sorted(fixed.keys() & lora.keys()):
        raise ValueError(f"lora has {repeated[0]!r}, which a reward model sets by itself; leave it out")
    try:
        return peft.get_peft_model(model, peft.LoraConfig(**{"target_modules": "all-linear"} | lora | fixed))
    except (TypeError, ValueError) as error:
        raise ValueError(f"lora={lora}: {error}") from error


def _is_head(name: str, model: Any) -> bool:
    """Whether a parameter stands behind a model's layers: in the head, or in the pooler of an encoder."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def _check_outputs(kind: str, config: Any, described: str) -> None:
    """Refuse another head than that of a reward model."""
    outputs = getattr(config, "num_labels", None)
    if not kind.endswith("ForSequenceClassification") or outputs != 1:
        what = f"has {outputs} outputs" if kind.endswith("ForSequenceClassification") else "has no such head"
        raise ValueError(
            f"{described} {what}, a reward model has one; pass the name of a model, or load it with "
            "AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)"
        )
