"""Whole episodes: each stored once, as one row of token ids with its per-token numbers.

An episode's last observation holds all the earlier ones, so T observations shrink to one, and one forward pass trains
all of its tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

PASS_COST = {"cpu": 8, "cuda": 4096}
"""What a forward and backward pass costs whatever its size, in tokens: reading weights, or launching kernels."""


@dataclass(frozen=True)
class Episodes:
    """E finished episodes; every field has E rows, and per-token fields are 0 behind an episode's end.

    Attributes:
        rows: (E, P + T) int64, the last observations.
        mask: (E, T) bool, True at completion tokens, EOS included.
        row_lengths: (E,) int64, tokens that training feeds: prompt and completion without its last token.
        prompt_ids: (E,) int64.
        components: (E, C) float32, the scorer's components, each the total of its episode.
        rewards: (E, T) float32.
        sampled_log_probs: (E, T) float32, of the sampled tokens, as cached decoding gave them.
        log_probs: (E, T) float32, the same; in bfloat16 as the training forward gives them.
        values: (E, T) float32, the value head at sampling time.
        reference_log_probs: (E, T) float32, of the same tokens under the frozen reference.
        reference_log_normalizers: (E, T) float32, of the states they were drawn in (`TokenTerms`).
        advantages: (E, T) float32, the weight of each token's log-probability; the agent fills it in.
        returns: (E, T) float32, what the value head is to predict; the agent fills it in.
    """

    rows: torch.Tensor
    mask: torch.Tensor
    row_lengths: torch.Tensor
    prompt_ids: torch.Tensor
    components: torch.Tensor
    rewards: torch.Tensor
    sampled_log_probs: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    reference_log_probs: torch.Tensor
    reference_log_normalizers: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def __len__(self) -> int:
        """The number of episodes, E."""
        return len(self.rows)

    @property
    def actions(self) -> torch.Tensor:
        """(E, T) int64 completion tokens; the pad id behind an episode's end."""
        return self.rows[:, -self.mask.shape[1] :]

    @property
    def lengths(self) -> torch.Tensor:
        """(E,) int64 completion tokens, EOS included."""
        return self.mask.sum(-1)

    @classmethod
    def sampled(cls, pad_id: int, **fields: torch.Tensor) -> Episodes:
        """What sampling alone gives; all that is computed later is 0.

        Args:
            pad_id: the MDP's.
            **fields: `rows`, `prompt_ids`, `components`, `rewards`, `sampled_log_probs` and `values`.
        """
        real, width = fields["rows"] != pad_id, fields["rewards"].shape[1]
        zeros = torch.zeros_like(fields["rewards"])
        return cls(
            **fields,
            mask=real[:, -width:],
            row_lengths=real.sum(-1) - 1,
            log_probs=fields["sampled_log_probs"],
            reference_log_probs=zeros,
            reference_log_normalizers=zeros,
            advantages=zeros,
            returns=zeros,
        )

    def replace(self, **fields: torch.Tensor) -> Episodes:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **fields)

    @classmethod
    def concatenate(cls, parts: Sequence[Episodes]) -> Episodes:
        """The episodes of several batches."""
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def select(self, index: Any) -> Episodes:
        """Some of the episodes."""
        return Episodes(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def micro_batches(self, size: int | None = None) -> Iterator[torch.Tensor]:
        """Indices of episodes to run together: of similar length, so that little of a micro-batch is padding.

        The cuts are those of least cost, which is the tokens with padding plus `PASS_COST` for each micro-batch.

        Args:
            size: episodes in a micro-batch at most; None sets no bound.
        """
        lengths, order = self.row_lengths.cpu().sort(stable=True)
        for start, end in cheapest_slices(lengths.numpy(), size, PASS_COST.get(self.rows.device.type, 32)):
            yield order[start:end].to(self.rows.device)


def cheapest_slices(lengths: np.ndarray, size: int | None, cost: int) -> list[tuple[int, int]]:
    """Cut sorted lengths into slices [start, end) of at most `size` with the least sum of (n max(lengths) + cost).

    By dynamic programming over the end of the last slice. Where there is no bound, only cuts between different lengths
    can gain anything.
    """
    ends = np.arange(len(lengths)) if size else np.flatnonzero(np.diff(lengths, append=-1))
    places = np.concatenate([[0], ends + 1])  # where a slice may start or end
    best, cut = np.zeros(len(places)), np.zeros(len(places), np.int64)
    for end in range(1, len(places)):
        starts = np.arange(max(0, end - size) if size else 0, end)
        costs = best[starts] + (places[end] - places[starts]) * lengths[places[end] - 1] + cost
        cut[end] = starts[costs.argmin()]
        best[end] = costs.min()
    slices, end = [], len(places) - 1
    while end:
        slices.append((int(places[cut[end]]), int(places[end])))
        end = int(cut[end])
    return slices[::-1]


def minibatches(n: int, batch_size: int | None) -> tuple[torch.Tensor, ...]:
    """Indices of `n` episodes in random order, `batch_size` at a time; all of them, in order, where it is None."""
    return torch.randperm(n).split(batch_size) if batch_size and batch_size < n else (torch.arange(n),)
