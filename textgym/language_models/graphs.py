"""Decode steps as CUDA graphs: eager decoding of a small model waits for kernel launches, not for the device.

A graph is captured for each power of two of rows and of columns; a step fills its input buffers and replays it. Rows
of a graph beyond the real ones are fed token 0 into their slots' last column, which no real token ever needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from textgym.language_models.slots import SlotCache, attended

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_ROWS, MIN_WIDTH = 8, 32


class GraphedSteps:
    """Replays decode steps of one model; where capturing fails, a warning says why and every call returns None.

    Args:
        model: a causal LM on a CUDA device. Its weights may change in place, but not move.
        capture: makes a function that does again what its argument did; a CUDA graph's replay.
    """

    def __init__(self, model: PreTrainedModel, capture: Callable[[Callable[[], None]], Callable[[], None]]):
        self._model, self._capture = model, capture
        self._cache: SlotCache | None = None
        self._steps: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor, Callable[[], None]]] = {}
        self._works = True

    def __call__(self, cache: SlotCache, fed: torch.Tensor, width: int) -> torch.Tensor | None:
        """Feed one token to each of the first n slots.

        Args:
            cache: the slots.
            fed: (2, n) int64, the tokens and their columns.
            width: the largest column + 1.

        Returns:
            (n, H) last hidden states.
        """
        if cache is not self._cache:
            self._cache, self._steps = cache, {}
        n = fed.shape[1]
        key = min(ceil_power(n, MIN_ROWS), cache.num_slots), min(ceil_power(width, MIN_WIDTH), cache.max_tokens)
        if self._works and key not in self._steps:
            try:
                self._steps[key] = self._captured(cache, *key, fed)
            except RuntimeError as error:
                self._works = False
                warnings.warn(f"decoding without CUDA graphs, because capturing one failed: {error}", stacklevel=2)
        if not self._works:
            return None
        inputs, output, replay = self._steps[key]
        fill(inputs, fed, cache)
        replay()
        return output[:n].clone()

    def _captured(
        self, cache: SlotCache, rows: int, width: int, fed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Callable[[], None]]:
        inputs = fed.new_zeros(2, rows)
        fill(inputs, fed, cache)
        output = torch.empty(0, device=fed.device)

        def step() -> None:
            nonlocal output
            cache.decode(inputs[1], width, aligned=False)
            hidden = self._model.base_model(
                input_ids=inputs[0, :, None],
                position_ids=inputs[1, :, None],
                attention_mask=attended(self._model, inputs[1], width),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, 0]
            if output.shape != hidden.shape:
                output = torch.empty_like(hidden)
            output.copy_(hidden)

        step()  # allocates what a capture may not
        device = fed.device.type
        # A graph must cast weights that autocast lowers itself: those in autocast's cache are freed with its context.
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
            return inputs, output, self._capture(step)


def fill(inputs: torch.Tensor, fed: torch.Tensor, cache: SlotCache) -> None:
    """Write a step into a graph's input buffer; what is left of it becomes idle rows."""
    n = fed.shape[1]
    inputs[:, :n] = fed
    inputs[0, n:], inputs[1, n:] = 0, cache.max_tokens - 1


def ceil_power(n: int, least: int) -> int:
    """The least power of two that is neither below `n` nor below `least`."""
    return max(least, 1 << (n - 1).bit_length())


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Capture `step`, which has run before, as a CUDA graph; returns its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries choose their kernels and workspaces outside the capture
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
