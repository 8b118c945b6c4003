"""Which prompts a training draws next, by how often their texts were right: a curriculum that sees results.

A prompt whose texts are right with probability p has rewards of variance p (1 - p), and where p is 0 or 1 nothing is
learned from them. So prompts that are solved half of the time teach most.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from textgym.mdp import IntArray

Curriculum = Literal["uniform", "difficulty", "thompson"]


class PromptCurriculum:
    """Success rates of the prompts of a finite source, and draws by them.

    A prompt with s right and f wrong texts so far has the posterior Beta(1 + s, 1 + f) over its rate, of mean p.

    Args:
        strategy: `"difficulty"` draws prompts in proportion to p (1 - p) (Rutherford et al. 2024, arXiv 2408.15099);
            `"thompson"` draws a rate for every prompt from its posterior, and takes the prompt whose is nearest to 1/2,
            so that little-known prompts are tried (Qu et al. 2025, arXiv 2507.04632).
        num_prompts: C; prompts are numbered 0..C-1.
        decay: what earlier texts count for after each update, because the policy changes.

    Attributes:
        counts: (2, C) float64, 1 + s and 1 + f.
    """

    def __init__(self, strategy: Literal["difficulty", "thompson"], num_prompts: int, decay: float):
        self.strategy, self.decay = strategy, decay
        self.counts = np.ones((2, num_prompts))

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` prompt ids, (count,) int64, with replacement."""
        right, wrong = self.counts
        if self.strategy == "thompson":
            rates = rng.beta(right, wrong, (count, len(right)))
            return np.abs(rates - 0.5).argmin(-1)
        weights = right * wrong / (right + wrong) ** 2
        return rng.choice(len(right), count, p=weights / weights.sum())

    def update(self, prompt_ids: IntArray, right: np.ndarray) -> None:
        """Count texts of some prompts, (E,) each; `right` says which of them were right."""
        self.counts = 1 + self.decay * (self.counts - 1)
        np.add.at(self.counts, (np.where(right, 0, 1), prompt_ids), 1)
