"""A causal LM as a trunk and a head: hidden states of real tokens first, logits only where they are wanted.

Rows go in with their first token in column 0 and repeat their last token behind their end: under causal attention
nothing sees what follows it, so neither a mask nor empty positions are needed. Model logits beyond V are cut off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from textgym.language_models.adapters import num_virtual_tokens
from textgym.mdp import TextMDP

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_model(model: PreTrainedModel, mdp: TextMDP) -> None:
    """Refuse a model that cannot play the MDP, with a ValueError that says why."""
    name, config = repr(model.name_or_path or type(model).__name__), model.config.get_text_config()
    head = model.get_output_embeddings()
    if head is None or not hasattr(model, "lm_head") and not model.can_generate():
        raise ValueError(f"the model {name} ({type(model).__name__}) has no causal language-modelling head")
    virtual = num_virtual_tokens(model)
    size, length = model.get_input_embeddings().weight.shape[0], virtual + mdp.max_prompt_tokens + mdp.max_new_tokens
    if size < mdp.vocab_size:
        raise ValueError(
            f"the model {name} embeds {size} tokens, the env's tokenizer has {mdp.vocab_size}; they do not belong "
            "together"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < length:
        raise ValueError(
            f"the model {name} has {positions} positions, an episode up to {length} tokens; lower max_prompt_tokens "
            f"({mdp.max_prompt_tokens}) or max_new_tokens ({mdp.max_new_tokens})"
            + (f" or num_virtual_tokens ({virtual})" if virtual else "")
        )
    window = getattr(config, "sliding_window", None) if _slides(config) else None
    if window is not None and window < length:
        raise ValueError(f"the model {name} attends to {window} tokens only, an episode has up to {length}")
    if getattr(model, "_is_stateful", False):
        raise ValueError(f"the model {name} is recurrent; only models with a key-value cache are supported")
    ids = torch.tensor([[0, mdp.vocab_size - 1]], device=model.device)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits[..., : mdp.vocab_size].float()
        split = logits_of(model, hidden_states(model, ids), mdp.vocab_size)
    if whole.isnan().any():
        raise ValueError(
            f"the logits of {name} are not numbers (nan); its weights are damaged, or its dtype is too small"
        )
    largest = float(whole.abs().where(whole.isfinite(), 0.0).max())  # a table of logits may hold -inf
    if not torch.allclose(whole, split, atol=2e-2 * largest, rtol=0):
        raise ValueError(f"the logits of {name} ({type(model).__name__}) are not its head's of its last hidden states")


def _slides(config: object) -> bool:
    layer_types = getattr(config, "layer_types", None)
    return getattr(config, "use_sliding_window", True) if layer_types is None else "sliding_attention" in layer_types


def hidden_states(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states of rows that begin in column 0, (N, L) int64 -> (N, L, H)."""
    positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return model.base_model(input_ids=input_ids, position_ids=positions, use_cache=False).last_hidden_state


def logits_of(model: PreTrainedModel, hidden: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """The head: (..., H) -> (..., V) float32, with the scalings that some architectures put behind it."""
    logits = model.get_output_embeddings()(hidden)[..., :vocab_size].float()
    config = model.config.get_text_config()
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def left_aligned(mdp: TextMDP, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The real tokens of observations, from column 0 on.

    Args:
        mdp: the MDP.
        rows: (N, W) int64, whose real tokens stand side by side.

    Returns:
        ids (N, L), where a row's last token fills what is behind it, and the rows' numbers of tokens (N,).
    """
    real = rows != mdp.pad_id
    lengths = real.sum(-1)
    columns = torch.arange(int(lengths.max()), device=rows.device).clamp(max=lengths[:, None] - 1)  # (N, L)
    return rows.gather(-1, columns + real.int().argmax(-1, keepdim=True)), lengths


def state_hidden(model: PreTrainedModel, mdp: TextMDP, rows: torch.Tensor) -> torch.Tensor:
    """The hidden state that the next token of each row is drawn from: (N, P + T) int64 -> (N, H)."""
    ids, lengths = left_aligned(mdp, rows)
    return hidden_states(model, ids)[torch.arange(len(ids), device=ids.device), lengths - 1]


def whole_rows_hidden(model: PreTrainedModel, mdp: TextMDP, rows: torch.Tensor) -> torch.Tensor:
    """The hidden states that completions' tokens are drawn from, (M, H), by one pass over every row."""
    ids, _ = left_aligned(mdp, rows)
    prompt = rows[:, : mdp.max_prompt_tokens].ne(mdp.pad_id).sum(-1, keepdim=True)  # (B, 1)
    steps = torch.arange(mdp.max_new_tokens, device=rows.device)
    index = (prompt - 1 + steps)[rows[:, mdp.max_prompt_tokens :] != mdp.pad_id]  # (M,) columns
    completion = rows[:, mdp.max_prompt_tokens :].ne(mdp.pad_id).sum(-1)
    row = torch.arange(len(rows), device=rows.device).repeat_interleave(completion)  # (M,)
    return hidden_states(model, ids[:, :-1])[row, index]  # nothing is drawn from a last token


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn an exhausted memory into an error that says what to lower."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator raises a plain one
        if is_exhausted(error):
            raise torch.OutOfMemoryError(f"the batch does not fit into memory; {advice}") from error
        raise


def is_exhausted(error: RuntimeError) -> bool:
    """Whether an error says that the memory is exhausted."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
