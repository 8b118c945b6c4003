"""Which language model belongs to an env: a Gymnasium env, a vector env, or an SB3 `VecEnv` of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from textgym.language_models import load_tokenizer
from textgym.tokenizers import Tokenizer, from_pretrained


def check_vocabulary(tokenizer: Tokenizer, model: str) -> None:
    """Refuse a named model whose tokenizer is not the env's, with a ValueError."""
    theirs = from_pretrained(load_tokenizer(model)).backend.get_vocab()
    if theirs != tokenizer.backend.get_vocab():
        raise ValueError(
            f"the env's tokenizer ({tokenizer.vocab_size} tokens) is not that of model {model!r} ({len(theirs)} "
            f"tokens); make the env with tokenizer={model!r}, or pass a loaded model that fits"
        )


def names_a_tokenizer(model: str) -> bool:
    """Whether a tokenizer belongs to a named model: to all but directories that hold the model alone."""
    names = ("tokenizer_config.json", "adapter_config.json")  # adapters have that of the model beneath
    return not Path(model).is_dir() or any((Path(model) / name).is_file() for name in names)


def default_model(env: Any) -> Any:
    """The env's own reference model where it has one (`TextGenToyEnv`), else the model that its tokenizer is named by.

    Args:
        env: as in `TokenPolicy.kwargs_for`.

    Returns:
        what `load_model` accepts; `"tiny"` where the tokenizer has no name.
    """
    if has_attribute(env, "reference_model"):
        return attribute(env, "reference_model")()
    spec = attribute(env, "spec")
    tokenizer = None if spec is None else spec.kwargs.get("tokenizer")
    return tokenizer if isinstance(tokenizer, str) and tokenizer != "bytes" else "tiny"


def attribute(env: Any, name: str) -> Any:
    """An attribute of the env behind the wrappers."""
    return env.get_attr(name)[0] if isinstance(env, VecEnv) else getattr(env.unwrapped, name)


def has_attribute(env: Any, name: str) -> bool:
    """Whether the env behind the wrappers has such an attribute."""
    return env.has_attr(name) if isinstance(env, VecEnv) else hasattr(env.unwrapped, name)
