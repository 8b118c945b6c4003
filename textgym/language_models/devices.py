"""Which devices a model may be put on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch

from textgym.arguments import Condition


@dataclass(frozen=True)
class Available(Condition):
    """A device that this machine has; stable-baselines3 takes the CPU without a word where there is no other.

    Attributes:
        auto: whether "auto" is one, which stable-baselines3 understands.
    """

    auto: bool = True

    def holds(self, value: Any) -> bool:
        """Whether torch knows the name, and the device is there."""
        if value == "auto":
            return self.auto
        try:
            device = torch.device(value)
        except (RuntimeError, TypeError):
            return False
        if device.type == "meta":  # weights without data: a model may be put there, but nothing can be computed
            return not self.auto
        backend = getattr(torch, device.type, None)  # torch.cpu, torch.cuda, torch.mps
        return backend is not None and (device.index or 0) < backend.device_count()

    def in_words(self) -> str:
        """The same on every machine, as the docs say it too."""
        return ("'auto', " if self.auto else "") + "'cpu', or another device that this machine has"


Device = Annotated[torch.device | str, Available()]
ModelDevice = Annotated[torch.device | str, Available(auto=False)]
"""Where a model goes that no agent of stable-baselines3 places."""
