"""The token-level MDP: its facts (`TextMDP`) and its one transition, as pure array functions that both envs call.

An episode is one row of token ids that only ever grows at its end. With P = `max_prompt_tokens`, T = `max_new_tokens`
and V = `vocab_size`, columns [0, P) of a row hold the prompt, right-aligned; columns [P, P + T) the completion,
left-aligned; every other cell is the pad id V, which no real token shares. Nothing here knows text, rewards or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from textgym.action_spaces import TokenSpace, TokenSpaces
from textgym.importing import require

if TYPE_CHECKING:
    import torch

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TextMDP:
    """What an env, a policy and a buffer must agree on. Both envs carry it as `env.unwrapped.mdp`.

    Attributes:
        vocab_size: V; actions are 0..V-1. The largest token id + 1, added tokens included.
        max_prompt_tokens: P, columns of an observation that belong to the prompt.
        max_new_tokens: T, the length limit of a completion.
        eos_token_ids: the ids that end an episode.
        bos_token_id: stands alone for an empty prompt; None where the tokenizer has none.
        min_new_tokens: an EOS id is forbidden as long as the completion is shorter than this, EOS not counted.
        banned_tokens: ids that are never allowed.
        allowed_tokens: if given, the only ids that are ever allowed.
        eot_token_ids: the ids that end a turn of the policy, where an episode has several, with a partner's between
            them. Empty where it is one turn.

    Raises:
        ValueError: sizes below 1, ids outside the vocabulary, no EOS id, restrictions that leave no token, or an id
            that ends both a turn and the episode.
    """

    vocab_size: int
    max_prompt_tokens: int
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None
    min_new_tokens: int = 0
    banned_tokens: tuple[int, ...] = ()
    allowed_tokens: tuple[int, ...] | None = None
    eot_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check every field against the others."""
        for name in ("vocab_size", "max_prompt_tokens", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}; it must lie in 0..max_new_tokens={self.max_new_tokens}"
            )
        if not self.eos_token_ids:
            raise ValueError("the tokenizer has no EOS token; name the ids that end a text with eos_token_ids=[...]")
        bos = () if self.bos_token_id is None else (self.bos_token_id,)
        for name, ids in (
            ("eos_token_ids", self.eos_token_ids),
            ("bos_token_id", bos),
            ("banned_tokens", self.banned_tokens),
            ("allowed_tokens", self.allowed_tokens or ()),
            ("eot_token_ids", self.eot_token_ids),
        ):
            if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
                raise ValueError(f"{name} contains {wrong}; token ids run from 0 to {self.vocab_size - 1}")
        if not self.allowed.any():
            raise ValueError("allowed_tokens and banned_tokens leave no token to choose")
        if self.min_new_tokens and not (self.allowed & ~self.is_eos).any():
            raise ValueError("min_new_tokens forbids EOS, and allowed_tokens and banned_tokens leave nothing else")
        if both := sorted({*self.eot_token_ids} & {*self.eos_token_ids}):
            raise ValueError(f"{both} are in eot_token_ids and in eos_token_ids; a token ends a turn or the episode")
        if self.eot_token_ids and not (self.allowed & self.is_eot).any():
            raise ValueError("allowed_tokens and banned_tokens forbid all eot_token_ids, so no turn could end")

    @property
    def pad_id(self) -> int:
        """The id of an empty cell: V."""
        return self.vocab_size

    @property
    def observation_space(self) -> spaces.Box:
        """`Box(0, V, (P + T,), int64)`."""
        return spaces.Box(0, self.pad_id, (self.max_prompt_tokens + self.max_new_tokens,), np.int64)

    @property
    def action_space(self) -> spaces.Discrete:
        """`Discrete(V)`: the next token. Where some are forbidden, a sample of it is one that is always permitted."""
        return TokenSpace(self.action_masks(0)) if self.restricted else spaces.Discrete(self.vocab_size)

    def batched_action_space(self, num_envs: int) -> spaces.MultiDiscrete:
        """`MultiDiscrete([V] * N)`: the next token of each row, with the same rule."""
        if self.restricted:
            return TokenSpaces(self.action_masks(0), num_envs)
        return spaces.MultiDiscrete(np.full(num_envs, self.vocab_size))

    @cached_property
    def is_eos(self) -> BoolArray:
        """(V,) True where choosing the token ends the episode."""
        mask = np.zeros(self.vocab_size, bool)
        mask[list(self.eos_token_ids)] = True
        return mask

    @cached_property
    def is_eot(self) -> BoolArray:
        """(V,) True where choosing the token ends a turn."""
        mask = np.zeros(self.vocab_size, bool)
        mask[list(self.eot_token_ids)] = True
        return mask

    @cached_property
    def is_full(self) -> BoolArray:
        """(T + 1,) True at the number of completion tokens that fills the row."""
        return np.arange(self.max_new_tokens + 1) == self.max_new_tokens

    @cached_property
    def allowed(self) -> BoolArray:
        """(V,) True where the token may be chosen, `min_new_tokens` apart."""
        mask = np.full(self.vocab_size, self.allowed_tokens is None)
        mask[list(self.allowed_tokens or ())] = True
        mask[list(self.banned_tokens)] = False
        return mask

    @cached_property
    def restricted(self) -> bool:
        """True where some token is forbidden in some state."""
        return self.min_new_tokens > 0 or not bool(self.allowed.all())

    def refuse_turns(self, what: str) -> None:
        """Raise a ValueError where an episode has several turns; `what` names what cannot take them."""
        if self.eot_token_ids:
            raise ValueError(
                f"{what} takes episodes of one turn; this env has a partner, whose tokens are no actions "
                "(docs/turns.md)"
            )

    def completion_lengths(self, observations: IntArray) -> IntArray:
        """Number of completion tokens written so far, EOS and a partner's included: (..., P + T) -> (...)."""
        return (observations[..., self.max_prompt_tokens :] != self.pad_id).sum(-1)

    def ended(self, observations: IntArray) -> BoolArray:
        """Whether each episode is over, by EOS or by length: (..., P + T) -> (...)."""
        lengths = self.completion_lengths(observations)
        newest = np.take_along_axis(observations, (self.max_prompt_tokens + lengths - 1)[..., None], -1)[..., 0]
        return self.is_full[lengths] | ((lengths > 0) & np.append(self.is_eos, False)[newest])

    def ended_by_eos(self, observations: IntArray) -> BoolArray:
        """Whether each row has an EOS id behind its prompt: (..., P + T) -> (...)."""
        return np.append(self.is_eos, False)[observations[..., self.max_prompt_tokens :]].sum(-1) > 0

    def action_masks(self, lengths: IntArray | int) -> BoolArray:
        """The tokens that may be chosen after `lengths` completion tokens: (...) -> (..., V)."""
        return self.permits(np.asarray(lengths)[..., None], slice(None))

    def permits(self, lengths: Any, tokens: Any) -> BoolArray:
        """Whether each of `tokens` may be chosen after `lengths` completion tokens: (...), (...) -> (...)."""
        return self.allowed[tokens] & ~((lengths < self.min_new_tokens) & self.is_eos[tokens])


def append(mdp: TextMDP, cells: IntArray, starts: Any, lengths: Any, actions: Any) -> tuple[Any, Any]:
    """The transition: write each action into the first free completion cell of its row.

    Works on one row (ints) and on many (arrays of shape (n,)) alike.

    Args:
        mdp: the MDP.
        cells: the rows as one flat array, changed in place.
        starts: index into `cells` of each row's first completion cell.
        lengths: completion tokens already written.
        actions: the tokens, each in 0..V-1.

    Returns:
        the new lengths, and whether each row has ended: an EOS id was chosen or the T-th token written.
    """
    cells[starts + lengths] = actions
    lengths = lengths + 1
    return lengths, mdp.is_eos[actions] | mdp.is_full[lengths]  # for one row, `|` of a numpy and a Python bool is slow


def first_observation(mdp: TextMDP, token_ids: Sequence[int]) -> IntArray:
    """The observation that an episode starts from: the prompt right-aligned, all else empty; (P + T,)."""
    row = np.full(mdp.max_prompt_tokens + mdp.max_new_tokens, mdp.pad_id, np.int64)
    row[mdp.max_prompt_tokens - len(token_ids) : mdp.max_prompt_tokens] = token_ids
    return row


def model_inputs(observations: IntArray | torch.Tensor, pad_id: int) -> dict[str, torch.Tensor]:
    """Observations as the keyword arguments of a transformers causal LM.

    Rows are moved so that each ends in the last column, and columns that are empty in every row are dropped; so
    `model(**model_inputs(obs, pad_id)).logits[:, -1]` are the logits of each row's next token, whatever the lengths.

    Args:
        observations: (P + T,) or (N, P + T) int64, numpy or torch (which keeps its device).
        pad_id: the id of an empty cell, `env.unwrapped.mdp.pad_id`.

    Returns:
        `input_ids` (empty cells become 0), `attention_mask` and `position_ids`, each (N, L) int64.

    Raises:
        ImportError: torch is missing.
    """
    torch = require("torch", "agents")
    rows = torch.atleast_2d(torch.as_tensor(observations))
    real = rows != pad_id  # (N, P + T)
    order = real.to(torch.int8).argsort(dim=-1, stable=True)[:, -int(real.sum(-1).max()) :]  # empty cells first
    mask = real.gather(-1, order).long()  # (N, L)
    ids = rows.gather(-1, order) * mask
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
