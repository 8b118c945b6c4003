"""How likely a model finds texts, in nats: the loss of the training and the figures of the card."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

IGNORE = -100  # cross_entropy's mark for cells that are no target


def losses(model: LlamaForCausalLM, rows: list[list[int]]) -> torch.Tensor:
    """Nats of each next token, (B * (L - 1),), 0 at padding. Rows are padded at their end, so no mask is needed."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, IGNORE)  # (B, L)
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = model(input_ids=ids[:, :-1].clamp(min=0), use_cache=False).logits  # (B, L - 1, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=IGNORE, reduction="none")


@torch.inference_mode()
def total_nats(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Negative log-likelihood of all rows, in nats; a row's first token is given."""
    order = sorted(rows, key=len)
    return sum(losses(model, order[i : i + 32]).sum().item() for i in range(0, len(order), 32))


def nats_per_token(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Mean negative log-likelihood of a token."""
    return total_nats(model, rows) / sum(len(row) - 1 for row in rows)
