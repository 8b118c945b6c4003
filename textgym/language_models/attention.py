"""Attention of our own in the layers of transformers' models, for the time of a pass.

It takes the place of transformers' `"sdpa"` and gives what that gives. Models that attend in another way are left
alone, and so are other devices and lower precisions than float32, for which torch's own kernels are the better ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Attend = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""A layer, its queries (n, heads, Q, head size), keys and values (n, key heads, W, head size), and what scores are
multiplied by, to (n, Q, heads, head size)."""

_ATTEND: ContextVar[Attend | None] = ContextVar("textgym_attention", default=None)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What a model's layers call in a block of `attending`; the arguments are transformers'."""
    attend = _ATTEND.get()
    plain = kwargs.get("position_bias") is None and value.shape[-1] == query.shape[-1]  # all that torch's kernel takes
    if attend is None or not plain:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return attend(module, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None


AttentionInterface.register(_ATTEND.name, attention)


def can_attend(model: PreTrainedModel) -> bool:
    """Whether `attending` may be asked of a model now."""
    attends = model.config.get_text_config()._attn_implementation
    plain = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    return model.device.type == "cpu" and attends == "sdpa" and plain


@contextmanager
def attending(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """A block in which the layers of a model that `can_attend` attend so."""
    config, token = model.config.get_text_config(), _ATTEND.set(attend)
    config._attn_implementation = _ATTEND.name
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
        _ATTEND.reset(token)
