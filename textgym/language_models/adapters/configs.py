"""The argument `peft` and its short form `lora`: which configuration of peft they stand for."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from textgym.importing import require
from textgym.language_models.adapters.kinds import TRAINED, check_trained, kind_of, peft_type

if TYPE_CHECKING:
    from peft import PeftConfig


def peft_config(peft: Any, lora: Any = None) -> PeftConfig | None:
    """The configuration of the adapters that are to be trained, a copy; None where neither argument is given.

    Args:
        peft: a `peft.PeftConfig`, or a dict of its arguments with the `peft_type`.
        lora: a `peft.LoraConfig`, or a dict of its arguments: `peft` for the type `"LORA"`.

    Raises:
        ValueError: both are given, the type is not one that can be trained, or the arguments are not that type's, or
            would change more than the adapters.
        ImportError: peft is missing.
    """
    if peft is None and lora is None:
        return None
    if peft is not None and lora is not None:
        raise ValueError("both peft and lora are given; lora is the short form of peft={'peft_type': 'LORA', ...}")
    name = "lora" if peft is None else "peft"
    try:
        config = _made({"peft_type": "LORA", **lora} if isinstance(lora, dict) else peft if lora is None else lora)
        if name == "lora" and peft_type(config) != "LORA":
            raise ValueError(f"it is of the kind {peft_type(config)}; pass it as peft")
        kind = kind_of(peft_type(config))
        for field, value in kind.defaults.items():
            if getattr(config, field) is None and not getattr(config, "target_parameters", None):
                setattr(config, field, value)
        check_trained(config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return config


def _made(given: Any) -> PeftConfig:
    """The configuration that a dict describes, or a copy of a given one, because peft writes into it."""
    module = require("peft", "agents")
    if isinstance(given, module.PeftConfig):
        return copy.deepcopy(given)
    if not isinstance(given, dict) or "peft_type" not in given:
        raise ValueError(
            f"{given!r} is not accepted; accepted are a peft.PeftConfig, or a dict of its arguments with the "
            f"peft_type: {', '.join(TRAINED)}"
        )
    arguments = dict(given)
    name = arguments.pop("peft_type")
    kind = kind_of(str(getattr(name, "value", name)))
    try:
        return getattr(module, kind.config)(**arguments)
    except TypeError as error:
        raise ValueError(f"{error}; accepted are the arguments of peft.{kind.config}") from error
