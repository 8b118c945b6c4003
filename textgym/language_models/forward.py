"""Observations through a transformers causal LM, column by column.

Rows keep the columns of their observations: the prompt ends at column P - 1 in every row, so the logits of all actions
lie in one slice. Empty cells are masked, get token 0, and never count as positions. Model logits beyond V are cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from textgym.mdp import TextMDP

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_vocabulary(model: PreTrainedModel, mdp: TextMDP) -> None:
    """Raise ValueError if the model cannot read every token of the env."""
    size = model.get_input_embeddings().weight.shape[0]
    if size < mdp.vocab_size:
        raise ValueError(
            f"the model {model.name_or_path or type(model).__name__!r} embeds {size} tokens, the env's tokenizer has "
            f"{mdp.vocab_size}; they do not belong together"
        )


def column_inputs(mdp: TextMDP, rows: torch.Tensor, first: int, start: int, end: int) -> dict[str, torch.Tensor]:
    """Model inputs that feed columns [start, end) of `rows` behind a cache of columns [first, start).

    Args:
        mdp: the MDP.
        rows: (N, P + T) int64.
        first: the first column that is not empty in every row.
        start: first column to feed.
        end: column after the last one to feed.

    Returns:
        `input_ids` and `position_ids`, (N, end - start), and `attention_mask`, (N, end - first).
    """
    real = rows[:, first:end] != mdp.pad_id
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    ids = rows[:, first:end].masked_fill(~real, 0)
    fed = slice(start - first, end - first)
    return {"input_ids": ids[:, fed], "position_ids": positions[:, fed], "attention_mask": real.long()}


def first_column(mdp: TextMDP, rows: torch.Tensor) -> int:
    """The first column that is not empty in every row."""
    return int((rows != mdp.pad_id).any(0).int().argmax())


def episode_outputs(model: PreTrainedModel, mdp: TextMDP, rows: torch.Tensor, width: int, **kwargs: Any) -> Any:
    """One forward pass over whole episodes; its last `width` positions are those of the first `width` actions."""
    first, end = first_column(mdp, rows), mdp.max_prompt_tokens + width - 1
    return model(**column_inputs(mdp, rows, first, first, end), use_cache=False, logits_to_keep=width, **kwargs)


def episode_logits(model: PreTrainedModel, mdp: TextMDP, rows: torch.Tensor) -> torch.Tensor:
    """Logits of every action of whole episodes in one forward pass.

    Args:
        model: a causal LM.
        mdp: the MDP.
        rows: (B, P + T) int64, finished or not.

    Returns:
        (B, W, V) float32, W the longest completion; entry [b, t] belongs to the state before completion token t.
    """
    width = int((rows[:, mdp.max_prompt_tokens :] != mdp.pad_id).sum(-1).max())
    return episode_outputs(model, mdp, rows, width).logits[..., : mdp.vocab_size].float()
