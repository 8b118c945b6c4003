"""Which prompts are held out: a hash of each decides, so that no seed, size or order can bring one into training."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "test"]
HELD_OUT = 0.2
"""The share of all prompts that are for tests."""


def in_split(key: str, split: Split) -> bool:
    """Whether a prompt belongs to a part; `key` is its text, or what it shares with those that ask the same."""
    number = int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big")
    return (number < HELD_OUT * 2**64) == (split == "test")
