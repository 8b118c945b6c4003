"""TextGym: token-level text generation as Gymnasium environments.

`import textgym` registers the env ids; it imports gymnasium and numpy, and nothing heavier.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from textgym.mdp import TextMDP, model_inputs
from textgym.registration import register_envs

__version__ = "0.1.0"
__all__ = ["Generations", "Scorer", "TextMDP", "Tokenizer", "model_inputs"]

_LAZY = {"Scorer": "textgym.scorers", "Generations": "textgym.scorers", "Tokenizer": "textgym.tokenizers"}


def __getattr__(name: str) -> Any:
    """Import the classes that users subclass or build only when they are asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'textgym' has no attribute {name!r}")


register_envs()
