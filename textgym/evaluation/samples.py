"""Episodes as texts: how they are sampled through the standard vector API, and how they are printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.mdp import IntArray
from textgym.scorers.base import Generations, Scorer

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Sample:
    """One episode as text; `reward` is its return, or None where nothing was scored."""

    prompt: str
    completion: str
    reward: float | None = None


class NoReward(Scorer):
    """Scores nothing: every reward is 0. For sampling where the env's own scorer is not wanted or cannot run."""

    name = "no_reward"

    def score(self, generations: Generations) -> Any:
        """(n,) zeros."""
        return np.zeros(len(generations))


def play(
    env: Any,
    choose: Callable[[IntArray], IntArray],
    seed: int | None = None,
    prompts: Sequence[Any] | None = None,
) -> list[Sample]:
    """One episode per row of a vector env.

    Args:
        env: what `gym.make_vec` returned for a TextGym id, in autoreset mode `"Disabled"`.
        choose: the policy: (N, P + T) observations to (N,) actions. It is asked for the rows that have ended, too;
            what it says of them is ignored.
        seed: of the env.
        prompts: N of them, each a text or a list of chat messages; None draws them.

    Returns:
        N samples, in the order of the rows. Where the env's scorer is `NoReward`, they have no reward.
    """
    observations, _ = env.reset(seed=seed, options=None if prompts is None else {"prompts": list(prompts)})
    returns, live = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    while live.any():
        observations, rewards, terminations, truncations, _ = env.step(choose(observations))
        returns += rewards
        live &= ~(terminations | truncations)
    task = env.unwrapped.task
    parts = [task.decode_parts(row) for row in observations]
    values = [None] * len(parts) if isinstance(task.scorer, NoReward) else returns.tolist()
    return [Sample(prompt, text, value) for (prompt, text), value in zip(parts, values, strict=True)]


def show_sample(sample: Sample, console: Console) -> None:
    """Print one line: the reward if there is one, the prompt in bold, the completion."""
    from rich.markup import escape

    prompt, completion = (escape(text.replace("\n", "\\n")) for text in (sample.prompt, sample.completion))
    reward = "" if sample.reward is None else f"[cyan]{sample.reward:+.3f}[/] "
    console.print(f"{reward}[bold]\\[{prompt}][/]{completion}", highlight=False, soft_wrap=True)
