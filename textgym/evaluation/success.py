"""Success in k tries, estimated from several completions of each prompt.

Of n completions of a prompt c are right. Then 1 - C(n - c, k) / C(n, k), the share of the subsets of k that hold a
right one, has the chance that k tries hold one as its mean (Chen et al. 2021, arXiv 2107.03374).
`textgym.exact.pass_at` is the chance itself, where completions can be enumerated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch

from textgym.arguments import CheckedArguments, Count, Finite
from textgym.evaluation.groups import check_groups, group_size
from textgym.matching.estimates import Estimate
from textgym.matching.intervals import SHARE
from textgym.training.episodes import Episodes
from textgym.training.features import features_of


def pass_at_k(attempts: int, right: int, k: int) -> float:
    """The unbiased estimate of pass@k from one prompt's completions.

    Args:
        attempts: completions of the prompt, n.
        right: how many of them are right, c.
        k: tries, at most n.

    Raises:
        ValueError: not 1 <= k <= n, or not 0 <= c <= n.
    """
    if not 1 <= k <= attempts or not 0 <= right <= attempts:
        raise ValueError(f"pass@{k} from {right} right of {attempts} completions: k and right must lie within them")
    return 1 - comb(attempts - right, k) / comb(attempts, k)


@dataclass(frozen=True)
class Success(CheckedArguments):
    """When a completion is right, and how many completions of a prompt there are to tell pass@k from.

    Attributes:
        ks: the k of every pass@k that is wanted.
        attempts: completions of each prompt, n; at least the largest k.
        component: `"reward"`, the env's return, or one of its scorer's components.
        at_least: a completion is right where the component is at least this.

    Raises:
        ValueError: no k, or one that is not within 1..n.
    """

    ks: tuple[Count, ...]
    attempts: Count
    component: str = "reward"
    at_least: Finite = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.ks or max(self.ks) > self.attempts:
            raise ValueError(
                f"pass@k for k in {list(self.ks)} needs {max(self.ks, default=1)} or more completions of "
                f"each prompt, not {self.attempts}"
            )

    def pass_at(self, episodes: Episodes, components: Sequence[str]) -> dict[int, Estimate]:
        """pass@k by k, means over prompts with the standard error that the draw of prompts and completions brings.

        Args:
            episodes: `attempts` that stand together for one prompt, as an env with that `num_generations` gives them.
            components: the names of the scorer's components.

        Raises:
            ValueError: those that stand together have several prompts, or there is no such component.
        """
        check_groups(episodes, self.attempts)
        features = features_of(episodes, components)
        if self.component not in features:
            raise ValueError(f"success is told by the component {self.component!r}; the env has {list(features)}")
        right = (features[self.component] >= self.at_least).view(-1, self.attempts).sum(-1).tolist()
        together = max(group_size(episodes) // self.attempts, 1)  # numbers of one prompt

        def mean_of(k: int) -> Estimate:
            each = torch.tensor([pass_at_k(self.attempts, c, k) for c in right], dtype=torch.float64)
            return Estimate.mean_of(each.view(-1, together).mean(-1), SHARE)

        return {k: mean_of(k) for k in self.ks}
