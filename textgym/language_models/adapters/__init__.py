"""Parameter-efficient adapters through peft: which kinds there are, how a model gets them, and their files.

`kinds.py` is the one place that knows the kinds: what can be trained, what can be read, and which settings of peft
would change more than the adapters.
"""

from textgym.language_models.adapters.files import (
    adapter_base,
    find_adapters,
    read_adapters,
    remember_base,
    save_model,
)
from textgym.language_models.adapters.models import add_lora, check_adapters, load_adapters, merge_adapters, unwrapped

__all__ = [
    "adapter_base",
    "add_lora",
    "check_adapters",
    "find_adapters",
    "load_adapters",
    "merge_adapters",
    "read_adapters",
    "remember_base",
    "save_model",
    "unwrapped",
]
