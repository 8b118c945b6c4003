"""Episodes as text for people: one line in mode "ansi", a line that grows in the terminal in mode "human"."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textgym.importing import require
from textgym.mdp import IntArray

if TYPE_CHECKING:
    from textgym.envs.task import TextTask


def ansi(task: TextTask, observation: IntArray, reward: float | None) -> str:
    """`[prompt] completion`, and the episode's return once it has ended (`reward` is not None)."""
    prompt, completion = task.decode_parts(observation)
    return f"[{prompt}]{completion}" + ("" if reward is None else f"  (reward {reward:+.3f})")


class LiveView:
    """Writes the prompt in bold, each new piece of the completion as it comes, and the reward at the end.

    Raises:
        ImportError: rich is missing.
    """

    def __init__(self, task: TextTask):
        require("rich", "rendering")
        self._task, self._shown = task, ""

    def show(self, observation: IntArray, reward: float | None) -> None:
        """Write what is new in `observation`; an empty completion starts a line."""
        from rich import get_console  # the process's own: a view that held a console could not be copied or pickled

        write = partial(get_console().print, end="", markup=False, highlight=False)
        prompt, completion = self._task.decode_parts(observation)
        if self._task.mdp.completion_lengths(observation) == 0:
            self._shown = ""
            write(prompt, style="bold")
        # A token may be a part of a character; what follows a replacement character is not written yet.
        ready = completion if reward is not None else completion.rstrip("\N{REPLACEMENT CHARACTER}")
        write(ready[len(self._shown) :], style="green", soft_wrap=True)
        self._shown = ready
        if reward is not None:
            write(f"  (reward {reward:+.3f})", style="cyan", end="\n")
