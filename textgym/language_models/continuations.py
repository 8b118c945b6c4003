"""How likely a language model holds texts to be: log p(continuation | context) for many rows of token ids at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from textgym.language_models.distribution import TokenDistribution
from textgym.language_models.forward import memory_advice
from textgym.language_models.log_probs import by_step, token_terms
from textgym.language_models.shared_prompts import episode_hidden
from textgym.mdp import IntArray, TextMDP, first_observation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """The numbers of rows that go through a model together: of similar lengths, so that there is little padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def as_episodes(
    contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], vocab_size: int
) -> tuple[TextMDP, IntArray]:
    """Rows of token ids as observations (n, P + T) of an MDP without restrictions, P and T as long as they need be."""
    mdp = TextMDP(vocab_size, max(map(len, contexts)), max(1, *map(len, continuations)), eos_token_ids=(0,))
    rows = np.stack([first_observation(mdp, context) for context in contexts])
    for row, tokens in zip(rows, continuations, strict=True):
        row[mdp.max_prompt_tokens : mdp.max_prompt_tokens + len(tokens)] = tokens
    return mdp, rows


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    vocab_size: int,
    batch_size: int,
) -> torch.Tensor:
    """Sums of the tokens' log-probabilities, sum_t log p(x_t | context, x_<t).

    Args:
        model: a causal LM in eval mode.
        contexts: n rows of at least one token each.
        continuations: n rows of tokens; an empty one has the sum 0.
        vocab_size: the distribution is the softmax of this many logits.
        batch_size: rows per forward pass at most.

    Returns:
        (n,) float64 on the CPU, in nats.
    """
    sums = torch.zeros(len(contexts), dtype=torch.float64)
    lengths = [len(context) + len(tokens) for context, tokens in zip(contexts, continuations, strict=True)]
    for batch in batches_by_length(lengths, batch_size):
        mdp, array = as_episodes([contexts[i] for i in batch], [continuations[i] for i in batch], vocab_size)
        rows = torch.from_numpy(array).to(model.device)
        actions = rows[:, mdp.max_prompt_tokens :]
        real = actions != mdp.pad_id
        distribution = TokenDistribution(mdp).to(model.device)
        with memory_advice("lower batch_size"):
            hidden = episode_hidden(model, mdp, rows)
            terms = token_terms(model, distribution, hidden, (real.cumsum(-1) - 1)[real], actions[real])
        sums[batch] = by_step(actions, mdp, terms).log_probs.double().sum(-1).cpu()
    return sums
