"""Episodes as text for people: one line in mode "ansi", a line that grows in the terminal in mode "human"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgym.mdp import IntArray

if TYPE_CHECKING:
    from textgym.envs.task import TextTask


def ansi(task: TextTask, observation: IntArray, reward: float | None) -> str:
    """`[prompt] completion`, and the episode's return once it has ended (`reward` is not None)."""
    prompt, completion = task.decode_parts(observation)
    return f"[{prompt}]{completion}" + ("" if reward is None else f"  (reward {reward:+.3f})")


class LiveView:
    """Writes the prompt in bold, each new piece of the completion as it comes, and the reward at the end."""

    def __init__(self, task: TextTask):
        from rich.console import Console

        self._task, self._console, self._shown = task, Console(highlight=False), ""

    def show(self, observation: IntArray, reward: float | None) -> None:
        """Write what is new in `observation`; an empty completion starts a line."""
        prompt, completion = self._task.decode_parts(observation)
        if self._task.mdp.completion_lengths(observation) == 0:
            self._shown = ""
            self._console.print(prompt, style="bold", end="", markup=False)
        # A token may be a part of a character; what follows a replacement character is not written yet.
        ready = completion if reward is not None else completion.rstrip("\N{REPLACEMENT CHARACTER}")
        self._console.print(ready[len(self._shown) :], style="green", end="", markup=False, soft_wrap=True)
        self._shown = ready
        if reward is not None:
            self._console.print(f"  (reward {reward:+.3f})", style="cyan")


def make_live_view(task: TextTask) -> LiveView:
    """A live view.

    Raises:
        ImportError: rich is missing.
    """
    try:
        return LiveView(task)
    except ModuleNotFoundError as error:
        raise ImportError('render_mode="human" needs rich: pip install "textgym[rendering]"') from error
