"""Groups of episodes that stand together for one prompt: they are not independent, groups are."""

from __future__ import annotations

import math

from textgym.training.episodes import Episodes


def group_size(episodes: Episodes) -> int:
    """How many episodes that stand together surely share a prompt: the env's `num_generations`, read off the prompts.

    It is the greatest common divisor of the lengths of all runs of one prompt, so that groups which drew the same
    prompt by chance do no harm. Where all episodes have one prompt, it does not make them alike, and they count as 1.
    """
    ids = episodes.prompt_ids
    ends = (ids[1:] != ids[:-1]).nonzero().flatten() + 1
    return math.gcd(len(ids), *ends.tolist()) if len(ends) else 1


def check_groups(episodes: Episodes, n: int) -> None:
    """Check that every n episodes that stand together have one prompt.

    Raises:
        ValueError: n does not divide the number of episodes, or n that stand together have several prompts.
    """
    if n < 1 or len(episodes) % n:
        raise ValueError(f"{len(episodes)} episodes cannot be parted into groups of n={n}")
    prompts = episodes.prompt_ids.view(-1, n)
    if (prompts != prompts[:, :1]).any():
        raise ValueError(f"the episodes of a group have several prompts; make the env with num_generations={n}")
