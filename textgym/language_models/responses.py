"""What a frozen language model answers: each prompt's response is its own, whatever prompts stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from textgym.language_models.continuations import batches_by_length
from textgym.language_models.decoder import Decoder
from textgym.language_models.distribution import TokenDistribution, sample
from textgym.language_models.forward import logits_of
from textgym.mdp import TextMDP, first_observation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def respond(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    mdp: TextMDP,
    *,
    temperature: float,
    seeds: Sequence[int],
    batch_size: int,
) -> list[list[int]]:
    """The tokens with which a model goes on, up to an end token, included, or T of them.

    Args:
        model: a causal LM that `check_decoding` accepts, in eval mode.
        prompts: n rows of at least one token id.
        mdp: says V, T and the end tokens; prompts may be longer than its P.
        temperature: logits are divided by it; 0 takes the likeliest token.
        seeds: n numbers; each prompt's tokens are drawn with its own.
        batch_size: prompts that are answered at a time.

    Returns:
        n rows of token ids.
    """
    responses: list[list[int]] = [[]] * len(prompts)
    for batch in batches_by_length([len(ids) for ids in prompts], batch_size):
        drawn = np.stack([np.random.default_rng(seeds[row]).random(mdp.max_new_tokens) for row in batch])
        rows = _episodes(model, [prompts[row] for row in batch], mdp, temperature, torch.from_numpy(drawn))
        for row, ids in zip(batch, rows, strict=True):
            responses[row] = ids
    return responses


def _episodes(
    model: PreTrainedModel, prompts: list[Sequence[int]], mdp: TextMDP, temperature: float, drawn: torch.Tensor
) -> list[list[int]]:
    """Responses of one batch; `drawn` are numbers in [0, 1), (n, T), one for each token."""
    width = max(map(len, prompts))
    mdp = TextMDP(mdp.vocab_size, width, mdp.max_new_tokens, mdp.eos_token_ids)
    rows = np.stack([first_observation(mdp, ids) for ids in prompts])
    decoder, distribution = Decoder(model, mdp), TokenDistribution(mdp, temperature or 1.0).to(model.device)
    for step in range(mdp.max_new_tokens):
        hidden, live = decoder.hidden(torch.from_numpy(rows))  # (n, H), (n,)
        if not live.any():
            break
        logits = logits_of(model, hidden[live.to(hidden.device)], mdp.vocab_size)
        log_probs = distribution.log_probs(logits, torch.full((len(logits),), step, device=logits.device))
        chosen = sample(log_probs, drawn[live, step].to(logits.device)) if temperature else log_probs.argmax(-1)
        rows[live.numpy(), width + step] = chosen.cpu().numpy()
    return [[i for i in ids if i != mdp.pad_id] for ids in rows[:, width:].tolist()]
