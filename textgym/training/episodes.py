"""Whole episodes: each stored once, as one row of token ids with its per-token numbers.

An episode's last observation holds all the earlier ones, so T observations shrink to one, and one forward pass trains
all of its tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from textgym.language_models.pieces import cheapest_groups, cheapest_slices, pass_cost
from textgym.training.distributed import from_all, from_first, rank, world_size


@dataclass(frozen=True)
class Episodes:
    """E finished episodes; every field has E rows, and per-token fields are 0 where there is no action.

    That is behind an episode's end, and where a partner speaks (`textgym.turns`).

    Attributes:
        rows: (E, P + T) int64, the last observations.
        actions: (E, T) int64, the tokens that the policy chose, in their places; the pad id where there is none.
        mask: (E, T) bool, True at actions, EOS included.
        row_lengths: (E,) int64, tokens that training feeds: prompt, and completion before its last action.
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
    actions: torch.Tensor
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
    def lengths(self) -> torch.Tensor:
        """(E,) int64 actions, EOS included."""
        return self.mask.sum(-1)

    @property
    def turns(self) -> torch.Tensor:
        """(E,) int64 turns of the policy: runs of actions, between which a partner speaks."""
        return (self.mask & ~torch.nn.functional.pad(self.mask, (1, 0))[:, :-1]).sum(-1)

    @property
    def last(self) -> torch.Tensor:
        """(E,) int64 the place of the last action; `lengths` - 1, unless a partner spoke before it."""
        return last_places(self.mask)

    @classmethod
    def sampled(cls, pad_id: int, mask: torch.Tensor | None = None, **fields: torch.Tensor) -> Episodes:
        """What sampling alone gives; all that is computed later is 0.

        Args:
            pad_id: the MDP's.
            mask: (E, T) bool, the places of actions; None where every token of a completion is one.
            **fields: `rows`, `prompt_ids`, `components`, `rewards`, `sampled_log_probs` and `values`.
        """
        real, width = fields["rows"] != pad_id, fields["rewards"].shape[1]
        mask = real[:, -width:] if mask is None else mask
        zeros = torch.zeros_like(fields["rewards"])
        return cls(
            **fields,
            actions=fields["rows"][:, -width:].masked_fill(~mask, pad_id),
            mask=mask,
            row_lengths=real[:, :-width].sum(-1) + last_places(mask),
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

    def to(self, device: torch.device | str) -> Episodes:
        """The episodes on a device."""
        return Episodes(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})

    def of_all_processes(self, own_prompts: bool) -> Episodes:
        """The episodes of all processes that train together, in their order.

        Args:
            own_prompts: whether each process numbers prompts by itself, so that equal numbers are different prompts.
        """
        if world_size() == 1:
            return self
        ids = self.prompt_ids * world_size() + rank() if own_prompts else self.prompt_ids
        parts = from_all(self.replace(prompt_ids=ids).to("cpu"))
        return Episodes.concatenate(parts).to(self.rows.device)

    def micro_batches(self, size: int | None = None, share_prompts: bool = True) -> list[torch.Tensor]:
        """Indices of episodes to run together, cut so that the fewest tokens go through the model.

        Either episodes of similar length are together, so that little of a micro-batch is padding, or those with the
        same prompt, which is then computed once.

        Args:
            size: episodes in a micro-batch at most; None sets no bound.
            share_prompts: whether the model can (`shares_prompts`).
        """
        if not len(self):
            return []
        cost, device = pass_cost(self.rows.device.type), self.rows.device
        lengths, order = self.row_lengths.cpu().sort(stable=True)
        least, slices = cheapest_slices(lengths.numpy(), size, cost)
        if share_prompts:
            prompts = (self.row_lengths - self.last).cpu().numpy()
            together = np.lexsort([self.prompt_ids.cpu().numpy(), prompts])
            fed = self.last.cpu().numpy()[together]
            groups = self.prompt_ids.cpu().numpy()[together]
            shared, cuts = cheapest_groups(groups, prompts[together], fed, size, cost)
            if shared < least:
                order, slices = torch.from_numpy(together), cuts
        return [order[start:end].to(device) for start, end in slices]

    def whole_groups(self, size: int | None = None) -> list[torch.Tensor]:
        """Indices of episodes that meet in one loss: those of a prompt stay together, so memory has to hold them all.

        Args:
            size: episodes in a part at most, unless a single prompt has more; None makes one part of all.
        """
        if size is None:
            return [torch.arange(len(self), device=self.rows.device)]
        _, group, counts = self.prompt_ids.unique(return_inverse=True, return_counts=True)
        parts: list[list[torch.Tensor]] = [[]]
        for rows in group.argsort(stable=True).split(counts.tolist()):
            if parts[-1] and sum(map(len, parts[-1])) + len(rows) > size:
                parts.append([])
            parts[-1].append(rows)
        return [torch.cat(part) for part in parts]


def last_places(mask: torch.Tensor) -> torch.Tensor:
    """The last place of each row where a mask is True, -1 where there is none: (E, T) bool -> (E,) int64."""
    places = torch.arange(mask.shape[-1], device=mask.device)
    return places.where(mask, -1).amax(-1)


def minibatches(n: int, batch_size: int | None) -> tuple[torch.Tensor, ...]:
    """Indices of `n` episodes in random order, `batch_size` at a time; all of them, in order, where it is None."""
    if not batch_size or batch_size >= n:
        return (torch.arange(n),)
    return from_first(torch.randperm(n)).split(batch_size)
