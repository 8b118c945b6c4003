"""Parameter-efficient adapters through peft: which kinds there are, how a model gets them, and their files.

`kinds.py` is the one place that knows the kinds: what can be trained, what can be read, and which settings of peft
would change more than the adapters.
"""

from textgym.language_models.adapters.configs import peft_config
from textgym.language_models.adapters.files import (
    adapter_base,
    find_adapters,
    read_adapters,
    read_config,
    remember_base,
    save_model,
)
from textgym.language_models.adapters.models import (
    add_adapters,
    check_adapters,
    load_adapters,
    merge_adapters,
    num_virtual_tokens,
    unwrapped,
)
from textgym.language_models.adapters.ranks import RankSchedule, rank_schedules

__all__ = [
    "RankSchedule",
    "adapter_base",
    "add_adapters",
    "check_adapters",
    "find_adapters",
    "load_adapters",
    "merge_adapters",
    "num_virtual_tokens",
    "peft_config",
    "rank_schedules",
    "read_adapters",
    "read_config",
    "remember_base",
    "save_model",
    "unwrapped",
]
