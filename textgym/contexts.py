"""The numbering of contexts in an MDP that is small enough to enumerate: a tree of K ordinary tokens and EOS.

A *context* is a completion without EOS that may still grow: d tokens of 0..K-1, d < L. Contexts are numbered by length,
then as base-K numbers, the first token being the most significant digit. So the root is 0 and the children of context i
are K i + 1 + a for a in 0..K-1; a table of logits or values has one row per context and K + 1 columns, EOS last.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from textgym.mdp import IntArray, TextMDP

MAX_ENTRIES = 2**24
"""The largest table, in entries: 64 MiB in float32."""


def table_shape(num_tokens: int, max_new_tokens: int) -> tuple[int, int]:
    """The shape (S, K + 1) of a table over contexts and actions, with S = sum_{d < L} K^d.

    Args:
        num_tokens: K, the ordinary tokens.
        max_new_tokens: L, the length limit.

    Raises:
        ValueError: sizes below 1, or more than `MAX_ENTRIES` entries.
    """
    for name, value in (("num_tokens", num_tokens), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    contexts = 0
    for depth in range(max_new_tokens):
        contexts += num_tokens**depth
        if contexts * (num_tokens + 1) > MAX_ENTRIES:
            raise ValueError(
                f"num_tokens={num_tokens} and max_new_tokens={max_new_tokens} make a table of more than {MAX_ENTRIES} "
                "entries (contexts x actions), which is too large to enumerate; lower one of them"
            )
    return contexts, num_tokens + 1


def check_enumerable(mdp: TextMDP) -> tuple[int, int]:
    """The shape of a table over an MDP's contexts: how many contexts there are, and K + 1 actions.

    Raises:
        ValueError: the MDP is not of the form that is numbered here, has turns, or is too large.
    """
    mdp.refuse_turns("numbering contexts")
    eos = mdp.vocab_size - 1
    if mdp.max_prompt_tokens != 1 or mdp.eos_token_ids != (eos,) or mdp.bos_token_id != eos:
        raise ValueError(
            "contexts are numbered where max_prompt_tokens is 1 and the largest token id is BOS and the only EOS; this "
            f"MDP has max_prompt_tokens={mdp.max_prompt_tokens}, vocab_size={mdp.vocab_size}, "
            f"eos_token_ids={mdp.eos_token_ids} and bos_token_id={mdp.bos_token_id}"
        )
    return table_shape(eos, mdp.max_new_tokens)


def context_indices(mdp: TextMDP, observations: IntArray) -> IntArray:
    """The number of each observation's context; S where the episode has ended.

    Args:
        mdp: an MDP that `check_enumerable` accepts.
        observations: (..., 1 + L) int64.

    Returns:
        (...) int64 in 0..S.

    Raises:
        ValueError: a prompt is not BOS alone.
    """
    if (observations[..., 0] != mdp.bos_token_id).any():
        raise ValueError("contexts are numbered after the empty prompt (BOS alone); this observation has another one")
    num_tokens = mdp.vocab_size - 1
    weights = _weights(num_tokens, mdp.max_new_tokens)[mdp.completion_lengths(observations)]  # (..., L)
    indices = ((observations[..., 1:] + 1) * weights).sum(-1)
    return np.where(mdp.ended(observations), table_shape(num_tokens, mdp.max_new_tokens)[0], indices)


@lru_cache
def _weights(num_tokens: int, max_new_tokens: int) -> IntArray:
    """(L + 1, L) K^(d-1-j) for token j of a context of d tokens, 0 behind its end; int64.

    From children K i + 1 + a follows: the index of a context is sum_j (a_j + 1) K^(d-1-j).
    """
    powers = np.subtract.outer(np.arange(max_new_tokens + 1) - 1, np.arange(max_new_tokens))
    return np.where(powers < 0, 0, np.int64(num_tokens) ** np.maximum(powers, 0))
