"""The arguments of `scripts/evaluate.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from scripts.policies import ModelArgs
from textgym.arguments import Count, Range
from textgym.evaluation import Success
from textgym.language_models.precision import Precision


@dataclass
class Args(ModelArgs):
    """What to evaluate."""

    reference: str | None = None
    """What KL is measured to; by default the checkpoint's reference, or for a plain model itself (KL is then 0)."""
    episodes: Count = 256
    """Fresh episodes to sample."""
    pass_at: tuple[Count, ...] = ()
    """The k of every pass@k to report: the chance that one of k completions of a prompt is right."""
    attempts: Count | None = None
    """Completions of each prompt, where pass@k is reported: by default the largest k. More of them, less noise."""
    success: str = "reward"
    """What tells whether a completion is right: `reward`, or a component of the env's scorer."""
    success_at: float = 1.0
    """A completion is right where `success` is at least this."""
    scorers: tuple[str, ...] = ()
    """Scorers besides the env's, to report what training never sees: names, import strings or JSON dicts."""
    frontier: Annotated[int, Range(0)] = 0
    """Texts of the reference for each prompt, which show the most reward at each KL; 0 leaves this out."""
    frontier_prompts: Count = 64
    """Prompts that the reference is sampled for; all of the env's, where it has fewer."""
    n_envs: Count | None = None
    """Episodes side by side; divides `episodes`. By default its largest divisor up to 64, or a prompt's completions."""
    micro_batch_size: Count | None = None
    """Episodes per forward pass at most; lower it when a large model runs out of memory."""
    dtype: Precision | None = None
    """`bfloat16` for autocast."""
    samples: Annotated[int, Range(0)] = 4
    """How many texts to show."""
    json: Path | None = None
    """Write the numbers to this file."""

    def told_by(self) -> Success | None:
        """When a completion is right; None where no pass@k is wanted."""
        if not self.pass_at:
            return None
        return Success(self.pass_at, self.attempts or max(self.pass_at), self.success, self.success_at)

    def group(self) -> int:
        """Episodes that have one prompt."""
        success = self.told_by()
        return success.attempts if success else 1

    def rows(self) -> int:
        """Episodes side by side.

        Raises:
            ValueError: they do not divide `episodes`, or are no multiple of the completions of a prompt.
        """
        group = self.group()
        if self.episodes % group:
            raise ValueError(f"--episodes {self.episodes} is not a multiple of {group}, the completions of each prompt")
        rows = self.n_envs or side_by_side(self.episodes // group, group)
        if self.episodes % rows:
            raise ValueError(f"--episodes {self.episodes} is not a multiple of --n-envs {self.n_envs}")
        if rows % group:
            raise ValueError(f"--n-envs {rows} is not a multiple of {group}, the completions of each prompt")
        return rows


def side_by_side(prompts: int, group: int) -> int:
    """Episodes side by side, up to 64, that together make up `group` of every prompt without a rest."""
    most = max(64, group)
    return group * max(d for d in range(1, prompts + 1) if prompts % d == 0 and d * group <= most)
