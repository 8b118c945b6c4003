"""Decode steps that read the keys and values of a prompt once for all rows that began with it.

A row's token attends to its prompt and to its own completion, as in `prompt_attention`, but the prompts of all groups
are read in one call.
"""

from __future__ import annotations

import numpy as np
import torch

from textgym.language_models.prompt_attention import merged, partial_attention
from textgym.mdp import IntArray

SPLIT_COST = 40
"""What attending in two parts costs a row, in columns of keys and values that it could read in that time."""
PRODUCT_COST = 1 / 8
"""What one more row costs in the matrix product of a prompt, as a share of reading the prompt's columns once more."""


class PromptGroups:
    """The rows of decode steps by their prompts, as long as neither rows nor slots change.

    Args:
        prompts: (n, P) int64, padded, of the rows in order of their slots.
        pad_id: the MDP's.

    Attributes:
        pays: whether so many columns need not be read that attending in two parts is worth it.
    """

    def __init__(self, prompts: IntArray, pad_id: int):
        lengths, n = (prompts != pad_id).sum(-1), len(prompts)
        self.shortest, self.longest, self.pays = int(lengths.min()), int(lengths.max()), False
        if self.longest <= SPLIT_COST:
            return
        _, first, group, counts = np.unique(prompts, axis=0, return_index=True, return_inverse=True, return_counts=True)
        most = int(counts.max())
        reads = len(counts) * (1 + PRODUCT_COST * most) * self.longest + SPLIT_COST * n
        if reads >= n * self.longest:
            return
        self.pays = True
        order = group.reshape(-1).argsort(kind="stable")
        place = np.arange(n) - (counts.cumsum() - counts).repeat(counts) + most * np.arange(len(counts)).repeat(counts)
        members = np.zeros(len(counts) * most, np.int64)  # of a group with fewer rows, row 0 fills the rest
        members[place] = order
        places = np.empty(n, np.int64)
        places[order] = place
        self._members, self._places = torch.from_numpy(members), torch.from_numpy(places)  # (G K,), (n,)
        self._first, self._lengths, self._size = torch.from_numpy(first), torch.from_numpy(lengths)[:, None], most
        self._behind_prompt = self._added(torch.arange(self.longest) >= self._lengths[self._first])  # (G, 1, 1, L)
        self._prompts: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def see(self, columns: torch.Tensor) -> None:
        """In the next step, row i attends to columns up to `columns[i]`, (n,) int64."""
        own = torch.arange(self.shortest, int(columns.max()) + 1)
        self._not_own = self._added((own < self._lengths) | (own > columns[:, None]))  # (n, 1, 1, t)

    @staticmethod
    def _added(columns: torch.Tensor) -> torch.Tensor | None:
        """What is added to the scores of columns that a row does not attend to."""
        if not columns.any():
            return None
        return torch.zeros(columns.shape).masked_fill_(columns, torch.finfo(torch.float32).min)[:, None, None]

    def attend(
        self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Attention of one token of each row.

        Args:
            module: the layer; its prompts are kept for the next steps.
            query: (n, heads, 1, head size).
            key: (n, key heads, W, head size), by slot; a row's first columns are its prompt's.
            value: the same, of values.
            scaling: of the scores.

        Returns:
            (n, 1, heads, head size).
        """
        if module not in self._prompts:
            keys, values = (states[:, :, : self.longest].index_select(0, self._first) for states in (key, value))
            self._prompts[module] = keys, values
        prompt_keys, prompt_values = self._prompts[module]  # (G, key heads, L, head size)
        own_keys, own_values = key[:, :, self.shortest :], value[:, :, self.shortest :]
        n, heads, _, size = query.shape
        query = query.reshape(n, key.shape[1], -1, size)  # (n, key heads, r, head size)
        together = self._together(query)
        output, log_sums = partial_attention(together, prompt_keys, prompt_values, scaling, self._behind_prompt)
        of_own = partial_attention(query, own_keys, own_values, scaling, self._not_own)
        whole, _ = merged(of_own, (self._apart(output), self._apart(log_sums)))
        return whole.reshape(n, 1, heads, -1)

    def _together(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, h, r, d) of rows -> (G, h, K r, d) of their groups."""
        return rows.index_select(0, self._members).unflatten(0, (-1, self._size)).transpose(1, 2).flatten(2, 3)

    def _apart(self, groups: torch.Tensor) -> torch.Tensor:
        """The inverse of `_together`."""
        rows = groups.unflatten(2, (self._size, -1)).transpose(1, 2).flatten(0, 1)  # (G K, h, r, d)
        return rows.index_select(0, self._places)
