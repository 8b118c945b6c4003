"""Logs for experiment trackers, as writers of stable-baselines3's logger; nothing leaves the machine by itself.

Left out: whatever sends data. `wandb sync` and `trackio.sync` are the user's own steps.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

TrackerName = Literal["wandb", "trackio"]
PROJECT = "textgym"


class TrackerLog(KVWriter):
    """Sends every row of the log, its numbers alone, to a tracker, with the timesteps as its step.

    A run that goes on under the same name and folder is continued. wandb ignores rows of steps that it has seen.

    Args:
        tracker: `"wandb"`, Weights & Biases in its offline mode unless the environment variable WANDB_MODE says
            otherwise, which writes to the run's folder; or `"trackio"`, which writes to its own local data base
            (TRACKIO_DIR).
        folder: of the run.
        name: of the run in the tracker.
        config: settings that the tracker shows beside the curves.

    Raises:
        ImportError: the tracker's package is not installed.
    """

    def __init__(self, tracker: TrackerName, folder: Path, name: str, config: dict[str, Any] | None = None):
        self.tracker = tracker
        module = imported(tracker)
        if tracker == "wandb":
            mode: Any = os.environ.get("WANDB_MODE", "offline")
            self.run = module.init(
                project=PROJECT, name=name, id=name, dir=str(folder), config=config, mode=mode, resume="allow"
            )
        else:
            self.run = module.init(project=PROJECT, name=name, config=config, resume="allow", embed=False)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Send a row; what is no number, such as a text, is left out."""
        row = filter_excluded_keys(key_values, key_excluded, self.tracker)
        self.run.log({key: float(value) for key, value in row.items() if is_number(value)}, step=step)

    def close(self) -> None:
        """End the tracker's run."""
        self.run.finish()


def imported(tracker: TrackerName) -> ModuleType:
    """The tracker's module.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(tracker)
    except ModuleNotFoundError as error:
        raise ImportError(f"the tracker {tracker!r} needs its package: pip install {tracker}") from error


def is_number(value: Any) -> bool:
    """Whether a logged value is a single number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)
