"""An SB3 rollout buffer of whole episodes.

SB3's `RolloutBuffer` holds one observation per transition, P + T ids for each token; this one holds `Episodes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from textgym.training.episodes import Episodes, minibatches


class EpisodeRolloutBuffer(RolloutBuffer):
    """An SB3 rollout buffer of whole episodes.

    Args:
        buffer_size: rounds of one episode per env that fill the buffer.
        observation_space: `Box(0, V, (P + T,), int64)`.
        action_space: `Discrete(V)`.
        max_new_tokens: T.
        device: where the episodes are handed out.
        gae_lambda: as in SB3.
        gamma: as in SB3.
        n_envs: episodes per round.
    """

    def __init__(self, *args: Any, max_new_tokens: int, **kwargs: Any):
        self.max_new_tokens = max_new_tokens
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Forget all episodes."""
        self.pos, self.full = 0, False
        self._episodes: Episodes | None = None

    def fill(self, **fields: np.ndarray) -> None:
        """Take finished episodes, in place of those that are there.

        Args:
            **fields: `rows`, `mask`, `prompt_ids`, `components`, `rewards`, `sampled_log_probs` and `values`, as in
                `Episodes`.
        """
        tensors = {name: torch.as_tensor(array, device=self.device) for name, array in fields.items()}
        pad_id = int(self.observation_space.high.flat[0])  # type: ignore[attr-defined]
        self._episodes = Episodes.sampled(pad_id, **tensors)
        self.pos, self.full = self.buffer_size, True

    @property
    def episodes(self) -> Episodes:
        """All episodes; settable, for what is computed after collection.

        Raises:
            RuntimeError: the buffer is empty.
        """
        if self._episodes is None:
            raise RuntimeError("the buffer is empty: no rollout has been collected")
        return self._episodes

    @episodes.setter
    def episodes(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def get(self, batch_size: int | None = None) -> Iterator[Episodes]:  # type: ignore[override]
        """Minibatches of whole episodes in random order; all of them where `batch_size` is None."""
        for index in minibatches(len(self.episodes), batch_size):
            yield self.episodes.select(index.to(self.episodes.rows.device))
