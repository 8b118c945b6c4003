"""Weights as a bfloat16 autocast uses them, kept instead of being cast again in every forward pass.

Under autocast the matrix products read bfloat16 copies of float32 weights, and all else stays as it is. A decode step
would spend most of its time on making these copies. Numbers are those of the autocast forward pass.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Precision = Literal["float32", "bfloat16"]
"""Of a forward pass: bfloat16 is autocast, trained weights stay float32."""


class AutocastCopy:
    """A model that shares every weight with another one, but has its own bfloat16 copies of the matrices.

    Attributes:
        model: the copy; call `refresh` after the original's weights have changed.
    """

    def __init__(self, original: PreTrainedModel):
        shared = {id(tensor): tensor for tensor in (*original.parameters(), *original.buffers())}
        self.model = copy.deepcopy(original, shared)
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for module in _matrix_modules(self.model):
            if module.weight.dtype != torch.bfloat16:
                weight = module.weight
                module.weight = nn.Parameter(weight.detach().bfloat16(), requires_grad=False)
                self._pairs.append((module.weight, weight))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the original's weights."""
        for copied, weight in self._pairs:
            copied.copy_(weight)


def lower_frozen_matrices(model: PreTrainedModel) -> None:
    """Store frozen matrices in bfloat16, in place; embeddings, and heads tied to them, stay."""
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in _matrix_modules(model):
        if not module.weight.requires_grad and id(module.weight) not in tied:
            module.weight.data = module.weight.data.bfloat16()


def _matrix_modules(model: PreTrainedModel) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D)]
