"""Next-token hidden states under a stateless API at the price of a key-value cache.

Row i of the observations is compared with what it was in the last call: a row that grew has its new tokens fed, one
after the other (there are several where a partner answered), a row that is new in any other way is prefilled, and a row
that is unchanged or has ended costs nothing. So the decoder needs no reset signal, is right under any wrapper, and pays
for the tokens that are really written, however unevenly the rows end and are replaced. Rows that begin with the same
prompt, such as a prompt group, share its forward pass, also where they begin at different times.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from textgym.language_models.attention import attending, can_attend
from textgym.language_models.forward import left_aligned, logits_of, memory_advice, state_hidden
from textgym.language_models.graphs import GraphedSteps, cuda_graph
from textgym.language_models.prompt_groups import PromptGroups
from textgym.language_models.slots import SlotCache, attended
from textgym.mdp import BoolArray, IntArray, TextMDP, first_observation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_decoding(model: PreTrainedModel, mdp: TextMDP) -> None:
    """Refuse a model that this decoder gets wrong, with a ValueError; it may build masks or caches in its own way."""
    rows = np.stack([first_observation(mdp, [0] * n) for n in (1, min(2, mdp.max_prompt_tokens))])
    decoder, error = Decoder(model, mdp), "the logits are not those of a plain forward pass"
    try:
        for first in (mdp.pad_id, int(mdp.is_eos.argmin())):  # a prefill, and a step of rows of different lengths
            rows[:, mdp.max_prompt_tokens] = first
            with torch.no_grad():
                hidden, live = decoder.hidden(torch.from_numpy(rows))
                plain = state_hidden(model, mdp, torch.from_numpy(rows).to(model.device))
            if not torch.allclose(hidden[live], plain[live], atol=2e-2 * float(plain.abs().max()), equal_nan=True):
                raise ValueError(error)
    except Exception as cause:  # another architecture may do anything with our mask and cache
        name = repr(model.name_or_path or type(model).__name__)
        raise ValueError(
            f"the model {name} ({type(model).__name__}) cannot be decoded with a cache: {cause}"
        ) from cause


class Decoder:
    """A ragged key-value cache behind a function of observations.

    Memory is bounded: one slot of P + T columns per row, kept until the number of rows changes (`cache_bytes`).

    Args:
        model: a transformers causal LM that `check_model` accepts, or its trunk, in eval mode.
        mdp: the MDP of the observations.
    """

    def __init__(self, model: PreTrainedModel, mdp: TextMDP):
        self.model, self.mdp = model, mdp
        self._cache: SlotCache | None = None
        self._graphs = GraphedSteps(model, cuda_graph) if model.device.type == "cuda" else None
        self.reset()

    def reset(self) -> None:
        """Forget all rows; call it whenever the weights may have changed."""
        self._seen: IntArray = np.empty((0, 0), np.int64)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values, for all rows at their full length."""
        return self._cache.nbytes if self._cache is not None else 0

    def logits(self, observations: torch.Tensor) -> torch.Tensor:
        """Logits of each row's next token: (N, P + T) int64 -> (N, V) float32; 0 for rows that have ended."""
        hidden, live = self.hidden(observations)
        logits = hidden.new_zeros(len(hidden), self.mdp.vocab_size, dtype=torch.float32)
        with torch.no_grad():
            logits[live] = logits_of(self.model, hidden[live], self.mdp.vocab_size)
        return logits

    @torch.no_grad()
    def hidden(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden state of each row, which the head turns into its next token's logits.

        Args:
            observations: (N, P + T) int64, on any device.

        Returns:
            hidden states (N, H), old ones in rows that have ended, and the rows that have not, (N,) bool on the CPU.
        """
        rows = observations.cpu().numpy()
        if rows.shape != self._seen.shape:
            self._start(len(rows), rows.shape[1])
        lengths = self.mdp.completion_lengths(rows)
        live, new, fresh = self._compare(rows, lengths)
        self.reset()  # a call that fails leaves nothing behind
        with memory_advice("lower the number of envs (n_envs), max_prompt_tokens or max_new_tokens"):
            if fresh.any():
                self._prefill(rows, np.flatnonzero(fresh))
            for behind in reversed(range(new.max(initial=0))):  # how many tokens follow those that are fed
                self._decode(rows, np.flatnonzero(new > behind), lengths - behind)
        self._seen, self._lengths = rows.copy(), lengths
        if self._hidden is None:  # all rows had ended when they were first seen
            size = self.model.config.get_text_config().hidden_size
            return torch.zeros(len(rows), size, device=self.model.device), torch.from_numpy(live)
        return self._hidden, torch.from_numpy(live)

    def _start(self, n: int, width: int) -> None:
        """Begin with `n` unknown rows."""
        self._seen, self._lengths = np.full((n, width), -1, np.int64), np.zeros(n, np.int64)
        self._slots = np.arange(n)  # the slot of each row
        self._groups: PromptGroups | None = None
        self._grouped = np.empty(0, np.int64)  # the rows that `_groups` is of
        self._hidden: torch.Tensor | None = None
        self._prompts = np.full((n, self.mdp.max_prompt_tokens), -1, np.int64)  # whose keys the row's slot begins with
        self._prompt_hidden: torch.Tensor | None = None  # (N, H)
        if self._cache is None or self._cache.num_slots != n:
            layers = self.model.config.get_text_config().num_hidden_layers
            self._cache = SlotCache(layers, n, self.mdp.max_prompt_tokens + self.mdp.max_new_tokens)

    def _compare(self, rows: IntArray, lengths: IntArray) -> tuple[BoolArray, IntArray, BoolArray]:
        """Which rows have not ended; of these, by how many tokens each grew, and which must be prefilled; each (N,)."""
        live, changed = ~self.mdp.ended(rows), rows != self._seen
        new = lengths - self._lengths
        grown = (new > 0) & (changed.sum(-1) == new) & ~(changed & (self._seen != self.mdp.pad_id)).any(-1)
        return live, new * (grown & live), changed.any(-1) & ~grown & live

    def _prefill(self, rows: IntArray, which: IntArray) -> None:
        """Run whole rows, equal ones once; a prompt that another row began with is copied from its slot."""
        assert self._cache is not None
        self._groups = None
        prompts, bare = self._prompts, ~(rows[which, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).any(-1)
        same = (rows[which, None, : self.mdp.max_prompt_tokens] == prompts).all(-1)  # (m, N)
        known = bare & same.any(-1)
        if known.any():
            sources = same[known].argmax(-1)
            slots = torch.from_numpy(np.stack([self._slots[sources], self._slots[which[known]]]))
            self._cache.move(*slots.to(self.model.device))
            assert self._prompt_hidden is not None
            self._store(which[known], self._prompt_hidden[torch.from_numpy(sources)])
            self._prompt_hidden[torch.from_numpy(which[known])] = self._prompt_hidden[torch.from_numpy(sources)]
        prompts[which] = np.where(bare[:, None], rows[which, : self.mdp.max_prompt_tokens], -1)
        if known.all():
            return
        fresh = which[~known]
        unique, inverse = np.unique(rows[fresh], axis=0, return_inverse=True)
        ids, lengths = left_aligned(self.mdp, torch.from_numpy(unique).to(self.model.device))
        into = torch.from_numpy(np.stack([inverse.reshape(-1), self._slots[fresh]])).to(ids.device)
        self._cache.prefill(into[0], into[1])
        output = self._run(ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids), None)
        hidden = output[torch.arange(len(ids), device=ids.device), lengths - 1][into[0]]  # (m, H)
        self._store(fresh, hidden)
        if self._prompt_hidden is None:
            self._prompt_hidden = hidden.new_zeros(len(rows), hidden.shape[-1])
        self._prompt_hidden[torch.from_numpy(fresh)] = hidden

    def _decode(self, rows: IntArray, which: IntArray, lengths: IntArray) -> None:
        """Feed one token of rows that grew: the last of `lengths`, (N,)."""
        assert self._cache is not None
        self._gather_in_front(which)
        which = which[self._slots[which].argsort()]  # in order of slots, which are 0..n-1
        prompts = (rows[which, : self.mdp.max_prompt_tokens] != self.mdp.pad_id).sum(-1)
        columns = prompts + lengths[which] - 1  # (n,)
        newest = rows[which, self.mdp.max_prompt_tokens + lengths[which] - 1]
        fed = torch.from_numpy(np.stack([newest, columns])).to(self.model.device)  # (2, n)
        width, aligned = int(columns.max()) + 1, bool((columns == columns[0]).all())
        hidden = self._graphs(self._cache, fed, width) if self._graphs is not None else None
        if hidden is None:
            self._cache.decode(fed[1], width, aligned)
            mask = attended(self.model, fed[1], width)
            groups = self._groups_of(rows, which)
            if groups is not None:
                groups.see(fed[1])
            with attending(self.model, groups.attend) if groups is not None else nullcontext():
                hidden = self._run(fed[0, :, None], fed[1, :, None], mask)[:, 0]
        self._store(which, hidden)

    def _groups_of(self, rows: IntArray, which: IntArray) -> PromptGroups | None:
        """Rows in order of their slots, by their prompts; None where reading these once is not possible or worth it."""
        assert self._cache is not None
        if self._cache.num_virtual or not can_attend(self.model):
            return None
        if self._groups is None or not np.array_equal(self._grouped, which):
            self._grouped = which
            self._groups = PromptGroups(rows[which, : self.mdp.max_prompt_tokens], self.mdp.pad_id)
        return self._groups if self._groups.pays else None

    def _gather_in_front(self, which: IntArray) -> None:
        """Exchange slots so that the rows `which` have the first ones."""
        assert self._cache is not None
        slots, n = self._slots[which], len(which)
        movers = which[slots >= n]
        if not len(movers):
            return
        taken = np.zeros(n, bool)
        taken[slots[slots < n]] = True
        holes = np.flatnonzero(~taken)  # as many as movers
        row_of = self._slots.argsort()
        displaced, old = row_of[holes], self._slots[movers]
        exchange = np.stack([np.concatenate([old, holes]), np.concatenate([holes, old])])
        sources, targets = torch.from_numpy(exchange).to(self.model.device)
        self._cache.move(sources, targets)
        self._slots[movers], self._slots[displaced] = holes, old

    def _run(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.model.base_model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self._cache, use_cache=True
        ).last_hidden_state

    def _store(self, which: IntArray, hidden: torch.Tensor) -> None:
        """Keep hidden states of rows; in a fresh tensor, because callers may hold the old one."""
        if self._hidden is None:
            self._hidden = hidden.new_zeros(len(self._slots), hidden.shape[-1])
        if len(which) == len(self._slots):
            self._hidden = torch.empty_like(hidden)
        else:
            self._hidden = self._hidden.clone()
        self._hidden[torch.from_numpy(which).to(hidden.device)] = hidden
