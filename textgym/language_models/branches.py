"""Next-token hidden states of every continuation of prompts, level by level.

A continuation of d tokens extends one of d - 1, so its keys and values are those of its parent and one column more. A
row of a forward pass is a parent, and its queries are all of the parent's children, which see the parent's columns and
themselves, but not each other. So every continuation costs one token, and a parent's columns are read where they are
for all of its children.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def branch_hidden(
    model: PreTrainedModel, prompts: torch.Tensor, tokens: torch.Tensor, depth: int
) -> Iterator[torch.Tensor]:
    """The hidden states that the tokens after a prompt and each of its continuations are drawn from.

    Args:
        model: a causal LM that `check_model` accepts, in eval mode.
        prompts: (n, L) int64, of one length.
        tokens: (K,) int64, which every continuation may go on with.
        depth: of how many levels.

    Yields:
        (n K^d, H) for the continuations by d = 0, 1, ..., depth - 1 tokens, prompt by prompt, in the order of base-K
        numbers whose digits are places in `tokens`.
    """
    cache = BranchCache(model.config.get_text_config().num_hidden_layers)
    length, k = prompts.shape[1], len(tokens)
    positions = torch.arange(length, device=prompts.device).expand_as(prompts)
    output = model.base_model(input_ids=prompts, position_ids=positions, past_key_values=cache, use_cache=True)
    hidden = output.last_hidden_state[:, -1]
    yield hidden
    cache.keep()
    itself = torch.eye(k, dtype=torch.bool, device=prompts.device)
    for d in range(1, depth):
        if d > 1:
            cache.branch()
        parents = len(hidden)
        ids = tokens.expand(parents, k)
        seen = torch.cat([itself.new_ones(k, length + d - 1), itself], 1)
        mask = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
        mask = mask.masked_fill(~seen, torch.finfo(model.dtype).min).expand(parents, 1, -1, -1)
        output = model.base_model(
            input_ids=ids,
            position_ids=torch.full_like(ids, length + d - 1),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state.flatten(0, 1)
        yield hidden


class BranchCache(Cache):
    """Keys and values of the columns that the rows of the next pass begin with, and those that the last pass added."""

    def __init__(self, num_layers: int):
        super().__init__(layers=[BranchLayer() for _ in range(num_layers)])

    def begin(self, prefix: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Every row of the next pass begins with virtual tokens: their keys and values, (1, heads, K, head size)."""
        for layer, states in zip(self.layers, prefix, strict=True):
            layer.past = states

    def keep(self) -> None:
        """The rows stay; they begin with all columns of the last pass."""
        for layer in self.layers:
            layer.past, layer.added = layer.seen(), None

    def branch(self) -> None:
        """Each column that the last pass added becomes a row, which begins with its old row's columns and itself."""
        for layer in self.layers:
            layer.past = tuple(
                torch.cat([old.repeat_interleave(new.shape[2], 0), new.transpose(1, 2).flatten(0, 1).unsqueeze(2)], 2)
                for old, new in zip(layer.past, layer.added, strict=True)
            )


class BranchLayer(CacheLayerMixin):
    """One layer of a `BranchCache`; keys and values are (rows, heads, columns, head size)."""

    def __init__(self) -> None:
        super().__init__()
        self.past: tuple[torch.Tensor, torch.Tensor] | None = None
        self.added: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is allocated ahead."""
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep what a pass adds, and return all that it attends to."""
        self.added = key_states, value_states
        return self.seen()

    def seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All that the last pass attended to."""
        assert self.added is not None
        if self.past is None:
            return self.added
        rows = len(self.added[0])
        keys, values = (
            torch.cat([old.expand(rows, -1, -1, -1), new], 2) for old, new in zip(self.past, self.added, strict=True)
        )
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of columns attended to, and the first one."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns before the fed ones."""
        return 0 if self.past is None else self.past[0].shape[2]

    def get_max_length(self) -> int:
        """There is no limit."""
        return -1
