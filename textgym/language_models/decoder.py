"""Next-token logits under a stateless API at the price of a key-value cache.

The decoder compares the observations that it is given with those it has seen. If every row only grew, the new columns
alone go through the model; anything else is a prefill of all rows. So it needs no reset signal and is right under any
wrapper. Rows share their columns: it is fast where rows start together (ended rows simply stay as they are), and slow,
but right, where they are replaced one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from textgym.language_models.forward import check_vocabulary, column_inputs, first_column
from textgym.mdp import TextMDP

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


class LockstepDecoder:
    """A key-value cache whose columns are the columns of the observations.

    Args:
        model: a transformers causal LM, in eval mode.
        mdp: the MDP of the observations.

    Raises:
        ValueError: the model embeds fewer tokens than the env's vocabulary has.
    """

    def __init__(self, model: PreTrainedModel, mdp: TextMDP):
        check_vocabulary(model, mdp)
        self._model, self._mdp = model, mdp
        self.reset()

    def reset(self) -> None:
        """Forget everything; call it whenever the weights may have changed."""
        self._cache: DynamicCache | None = None
        self._seen = torch.empty(0, 0, dtype=torch.int64)
        self._first = self._end = 0  # columns [first, end) are in the cache
        self._logits = torch.empty(0)
        self._hidden: torch.Tensor | None = None

    def logits(self, observations: torch.Tensor) -> torch.Tensor:
        """Logits of each row's next token: (N, P + T) int64 -> (N, V) float32."""
        return self.logits_and_hidden(observations, with_hidden=False)[0]

    @torch.no_grad()
    def logits_and_hidden(
        self, observations: torch.Tensor, with_hidden: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of each row's next token, and the last hidden state that they were computed from.

        Args:
            observations: (N, P + T) int64 on the model's device.
            with_hidden: whether to keep hidden states, (N, H) float32; None otherwise.
        """
        real = observations != self._mdp.pad_id
        columns = torch.arange(real.shape[1], device=real.device)
        last = (real * columns).amax(-1)  # (N,) each row's last token
        end = int(last.max()) + 1
        if not self._continues(observations, end, with_hidden):
            self.reset()
            self._first = self._end = first_column(self._mdp, observations)
            self._logits = observations.new_zeros(len(observations), self._mdp.vocab_size, dtype=torch.float32)
        if end > self._end:
            self._feed(observations, last, end, with_hidden)
        self._seen, self._end = observations.clone(), end
        return self._logits, self._hidden

    def _continues(self, observations: torch.Tensor, end: int, with_hidden: bool) -> bool:
        """Whether the cached columns are still those of `observations`."""
        return (
            self._cache is not None
            and end >= self._end
            and with_hidden == (self._hidden is not None)
            and self._seen.shape == observations.shape
            and self._seen.device == observations.device
            and torch.equal(self._seen[:, : self._end], observations[:, : self._end])
        )

    def _feed(self, observations: torch.Tensor, last: torch.Tensor, end: int, with_hidden: bool) -> None:
        """Run columns [self._end, end) and keep what comes out at each row's last token."""
        from transformers import DynamicCache

        if self._cache is None:
            self._cache = DynamicCache(config=self._model.config)
        grown = last >= self._end  # (N,) rows whose last token is among the fed ones
        keep, index = torch.unique(last[grown] - self._end, return_inverse=True)
        output = self._model(
            **column_inputs(self._mdp, observations, self._first, self._end, end),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
            output_hidden_states=with_hidden,
        )
        # Rows that did not grow keep their logits; a fresh tensor, because callers may hold the old one.
        self._logits = self._logits.clone()
        self._logits[grown] = output.logits[grown, index, : self._mdp.vocab_size].float()
        if with_hidden:
            hidden = output.hidden_states[-1]
            if self._hidden is None:
                self._hidden = hidden.new_zeros(len(hidden), hidden.shape[-1], dtype=torch.float32)
            self._hidden = self._hidden.clone()
            self._hidden[grown] = hidden[grown, keep[index]].float()
