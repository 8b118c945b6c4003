"""A key-value cache of slots: rows of different lengths, each growing and being replaced on its own.

transformers' caches concatenate one column to all rows in every step, which copies everything that is there. Here each
row's keys and values are written in place; a decode step reads the slots of the rows that grow, which are the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotCache(Cache):
    """Keys and values of `num_slots` rows of up to `max_tokens` tokens, allocated when the first ones come.

    What `update` does with them is said before each forward pass, by `prefill` or `decode`.
    """

    def __init__(self, num_layers: int, num_slots: int, max_tokens: int):
        self.num_slots, self.max_tokens = num_slots, max_tokens
        super().__init__(layers=[SlotLayer(self) for _ in range(num_layers)])

    def prefill(self, sources: torch.Tensor, slots: torch.Tensor) -> None:
        """The next pass runs whole rows from column 0 on; row `sources[j]` of it goes into slot `slots[j]`."""
        self.prefilling, self.sources, self.slots = True, sources, slots
        self.begin([])

    def begin(self, prefix: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Virtual tokens stand before column 0 of every row of the next pass, and of all that follow it.

        Args:
            prefix: their keys and values for each layer, (1, heads, K, head size).
        """
        self.num_virtual = prefix[0][0].shape[2] if prefix else 0
        for layer, states in zip_longest(self.layers, prefix):
            layer.prefix = states

    def decode(self, columns: torch.Tensor, width: int, aligned: bool) -> None:
        """The next pass runs one token for each of the first n slots.

        Args:
            columns: (n,) where each slot's token goes.
            width: columns that are attended to.
            aligned: whether all columns are `width - 1`.
        """
        self.prefilling, self.columns, self.width, self.aligned = False, columns, width, aligned
        self.slots = torch.arange(len(columns), device=columns.device)

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy slots; `sources` and `targets` may overlap."""
        for layer in self.layers:
            for store in (layer.keys, layer.values):
                if store is not None:
                    store[targets] = store[sources]

    @property
    def nbytes(self) -> int:
        """The number of bytes that are allocated."""
        stores = [store for layer in self.layers for store in (layer.keys, layer.values) if store is not None]
        return sum(store.nbytes for store in stores)


def attended(model: Any, columns: torch.Tensor, width: int) -> torch.Tensor:
    """The mask (n, 1, 1, width), added to scores, under which token i attends to the columns up to `columns[i]`."""
    seen = torch.arange(width, device=columns.device) <= columns[:, None]
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(seen.shape, dtype=model.dtype, device=seen.device).masked_fill(~seen, lowest)[:, None, None]


class SlotLayer(CacheLayerMixin):
    """One layer of a `SlotCache`; `keys` and `values` are (slots, heads, tokens, head size)."""

    def __init__(self, cache: SlotCache):
        super().__init__()
        self.cache = cache
        self.prefix: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate both stores."""
        size = self.cache.num_slots, self.cache.num_virtual + self.cache.max_tokens
        for name, states in (("keys", key_states), ("values", value_states)):
            _, heads, _, width = states.shape
            # zeros, because masked columns are multiplied by probability 0, which does not silence a NaN
            setattr(self, name, states.new_zeros(size[0], heads, size[1], width))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (n, heads, L, head size) and return what the pass attends to."""
        cache = self.cache
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        if cache.prefilling:
            if self.prefix is not None:
                front = [part.to(key_states.dtype).expand(len(key_states), -1, -1, -1) for part in self.prefix]
                key_states, value_states = torch.cat([front[0], key_states], 2), torch.cat([front[1], value_states], 2)
            length = key_states.shape[2]
            for store, states in ((self.keys, key_states), (self.values, value_states)):
                store[cache.slots, :, :length] = states[cache.sources].to(store.dtype)
            return key_states, value_states
        width = cache.num_virtual + cache.width
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            if cache.aligned:
                store[: len(states), :, width - 1] = states[:, :, 0]
            else:
                store[cache.slots, :, cache.num_virtual + cache.columns] = states[:, :, 0].to(store.dtype)
        n = len(key_states)
        return self.keys[:n, :, :width], self.values[:n, :, :width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of columns attended to, and the first one."""
        return self.cache.num_virtual + (query_length if self.cache.prefilling else self.cache.width), 0

    def get_seq_length(self) -> int:
        """Columns before the fed ones."""
        return self.cache.num_virtual + (0 if self.cache.prefilling else self.cache.width - 1)

    def get_max_length(self) -> int:
        """The number of columns that a slot has."""
        return self.cache.num_virtual + self.cache.max_tokens
