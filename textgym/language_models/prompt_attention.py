"""Attention of completions to the prompt that they share, which is read where it is, with gradient.

A token of a completion attends to its prompt and to its completion. Each part is a call of torch's fused kernel: all
completions of a prompt are one long query of its keys and values, which are copied for none of them, and the
completions attend to themselves. The kernel gives outputs o and the logarithms l of the sums of exp(scores), so that

    o = sigmoid(l_prompt - l_own) o_prompt + sigmoid(l_own - l_prompt) o_own,    l = log(exp(l_prompt) + exp(l_own)),

and its backward pass, told the whole's o and l, gives the gradients of a part, as in ring attention (Liu et al. 2023,
arXiv 2310.01889).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


Part = tuple[torch.Tensor, torch.Tensor]
"""Outputs (..., Q, head size) of attention, and logarithms of the sums of exp(scores), (..., Q, 1)."""


def partial_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
) -> Part:
    """Attention of (n, heads, Q, head size) to (n, heads, W, head size), with a mask that is added to the scores."""
    output, log_sums = _FORWARD(query, key, value, is_causal=is_causal, attn_mask=mask, scale=scaling)
    return output, log_sums[..., None]


def merged(own: Part, other: Part) -> Part:
    """Attention to the columns of both parts."""
    return own[0].lerp(other[0], torch.sigmoid(other[1] - own[1])), torch.logaddexp(own[1], other[1])


class Group(NamedTuple):
    """Rows `start` to `end` of a pass, which have the first `length` columns of the prompt `prompt`."""

    prompt: int
    start: int
    end: int
    length: int


class PromptAttention:
    """The attention of a pass of completions behind prompts.

    Args:
        layers: the prompts' keys and values in each layer, (U, key heads, L, head size) both.
        groups: which rows have which prompt; together they are all rows of the pass, in order.
    """

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]], groups: list[Group]):
        self.layers, self.groups = layers, groups

    def __call__(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """See `Attend`; the keys and values are those of the completions, and the module says which layer it is."""
        return _Attention.apply(query, key, value, *self.layers[module.layer_idx], scaling, self.groups).transpose(1, 2)


class _Attention(torch.autograd.Function):
    """(n, heads, Q, head size) of queries, to keys of their prompts and to earlier ones of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        prompt_keys: torch.Tensor,
        prompt_values: torch.Tensor,
        scaling: float,
        groups: list[Group],
    ) -> torch.Tensor:
        """The outputs; `groups` as in `PromptAttention`."""
        heads, key_heads = query.shape[1], key.shape[1]
        key, value = (states.repeat_interleave(heads // key_heads, 1) for states in (key, value))
        result, log_sums = partial_attention(query, key, value, scaling, is_causal=True)
        for prompt, start, end, length in groups:
            columns, rows = (prompt, slice(None), slice(length)), slice(start, end)
            keys, values = prompt_keys[columns][None], prompt_values[columns][None]
            output, sums = partial_attention(_folded(query[rows], key_heads), keys, values, scaling)
            of_prompt = _unfolded(output, end - start, heads), _unfolded(sums, end - start, heads)
            result[rows], log_sums[rows] = merged((result[rows], log_sums[rows]), of_prompt)
        ctx.save_for_backward(query, key, value, prompt_keys, prompt_values, result, log_sums)
        ctx.scaling, ctx.groups = scaling, groups
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """The gradients of the tensors."""
        query, key, value, prompt_keys, prompt_values, result, log_sums = ctx.saved_tensors
        heads, key_heads = query.shape[1], prompt_keys.shape[1]
        of_query, *own = _BACKWARD(
            gradient, query, key, value, result, log_sums[..., 0], 0.0, is_causal=True, scale=ctx.scaling
        )
        of_prompts = torch.zeros_like(prompt_keys), torch.zeros_like(prompt_values)
        for prompt, start, end, length in ctx.groups:
            columns, rows = (prompt, slice(None), slice(length)), slice(start, end)
            keys, values = prompt_keys[columns][None], prompt_values[columns][None]
            outer, folded, output, sums = (_folded(x[rows], key_heads) for x in (gradient, query, result, log_sums))
            of_folded, *of_states = _BACKWARD(
                outer, folded, keys, values, output, sums[..., 0], 0.0, is_causal=False, scale=ctx.scaling
            )
            of_query[rows] += _unfolded(of_folded, end - start, heads)
            for whole, of_part in zip(of_prompts, of_states, strict=True):
                whole[columns] = of_part[0]
        of_own = (states.unflatten(1, (key_heads, -1)).sum(2) for states in own)
        return of_query, *of_own, *of_prompts, None, None


def _folded(rows: torch.Tensor, key_heads: int) -> torch.Tensor:
    """(K, heads, Q, d) of rows with one prompt -> (1, key heads, r K Q, d), the queries of the same keys in a row."""
    return rows.unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3, 4).flatten(1, 3)[None]


def _unfolded(folded: torch.Tensor, count: int, heads: int) -> torch.Tensor:
    """The inverse of `_folded` for `count` rows."""
    per_key = heads // folded.shape[1]
    return folded[0].unflatten(1, (per_key, count, -1)).permute(2, 0, 1, 3, 4).flatten(1, 2)
