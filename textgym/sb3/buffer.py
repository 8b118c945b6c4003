"""Whole episodes: each stored once, as one row of token ids with its per-token numbers.

SB3's `RolloutBuffer` holds one observation per transition, P + T ids for each token; an episode's last observation
holds all the earlier ones, so T of them shrink to one, and one forward pass trains them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer


@dataclass(frozen=True)
class Episodes:
    """E finished episodes; every field has E rows, and per-token fields are 0 behind an episode's end.

    Attributes:
        rows: (E, P + T) int64, the last observations.
        mask: (E, T) bool, True at completion tokens, EOS included.
        prompt_ids: (E,) int64.
        components: (E, C) float32, the scorer's components, each the total of its episode.
        rewards: (E, T) float32.
        log_probs: (E, T) float32, of the sampled tokens under the policy that sampled them.
        values: (E, T) float32, the value head at sampling time.
        reference_log_probs: (E, T) float32, of the same tokens under the frozen reference.
        advantages: (E, T) float32, the weight of each token's log-probability; the agent fills it in.
    """

    rows: torch.Tensor
    mask: torch.Tensor
    prompt_ids: torch.Tensor
    components: torch.Tensor
    rewards: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    reference_log_probs: torch.Tensor
    advantages: torch.Tensor

    def __len__(self) -> int:
        """E."""
        return len(self.rows)

    @property
    def actions(self) -> torch.Tensor:
        """(E, T) int64 completion tokens; the pad id behind an episode's end."""
        return self.rows[:, -self.mask.shape[1] :]

    @property
    def lengths(self) -> torch.Tensor:
        """(E,) int64 completion tokens, EOS included."""
        return self.mask.sum(-1)

    def replace(self, **fields: torch.Tensor) -> Episodes:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **fields)

    def select(self, index: Any) -> Episodes:
        """Some of the episodes."""
        return Episodes(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def split(self, size: int | None) -> Iterator[Episodes]:
        """Consecutive pieces of at most `size` episodes, in order of length, so that little of a piece is padding."""
        order = self.lengths.argsort(stable=True)
        for index in order.split(size or len(self)):
            yield self.select(index)


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
        self._rounds: list[dict[str, torch.Tensor]] = []
        self._episodes: Episodes | None = None

    def add(self, **fields: np.ndarray) -> None:  # type: ignore[override]
        """Store one finished episode per env.

        Args:
            **fields: `rows`, `prompt_ids`, `components`, `rewards`, `log_probs` and `values`, as in `Episodes`.
        """
        self._rounds.append({name: torch.as_tensor(array, device=self.device) for name, array in fields.items()})
        self.pos += 1
        self.full = self.pos == self.buffer_size
        if self.full:
            joined = {name: torch.cat([r[name] for r in self._rounds]) for name in self._rounds[0]}
            pad_id = self.observation_space.high.flat[0]  # type: ignore[attr-defined]
            mask = joined["rows"][:, -self.max_new_tokens :].ne(int(pad_id))
            zeros = torch.zeros_like(joined["rewards"])
            self._episodes = Episodes(**joined, mask=mask, reference_log_probs=zeros, advantages=zeros)

    @property
    def episodes(self) -> Episodes:
        """All episodes; settable, for what is computed after collection.

        Raises:
            RuntimeError: the buffer is not full.
        """
        if self._episodes is None:
            raise RuntimeError(f"the buffer holds {self.pos} of {self.buffer_size} rounds of episodes")
        return self._episodes

    @episodes.setter
    def episodes(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def get(self, batch_size: int | None = None) -> Iterator[Episodes]:  # type: ignore[override]
        """Minibatches of whole episodes in random order; all of them where `batch_size` is None."""
        for index in torch.randperm(len(self.episodes)).split(batch_size or len(self.episodes)):
            yield self.episodes.select(index.to(self.episodes.rows.device))
