"""The reference model's log-probability as a token scorer: R(s_t, a_t) = log P_ref(a_t | s_t)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.mdp import IntArray, TextMDP
from textgym.scorers.base import Generations, Scorer, errors_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from textgym.language_models.decoder import Decoder


class LogProb(Scorer):
    """log P_ref(a_t | s_t) of the newest token by a language model, in nats, paid at every step.

    So the return is log P_ref(x | prompt).

    The env's token ids go into the model as they are, so env and model must share a tokenizer. P_ref is the softmax of
    the model's first V logits; the env's token restrictions are not applied to it. The model is frozen: it must not be
    trained while the scorer keeps a cache of its states.

    Args:
        model: anything that `textgym.language_models.load_model` accepts.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        name: the component's name in `info`.

    Range: at most 0 per token; 0 is best.

    Cost: one decode step of the model per token, from a cache of its states.

    Source: TextGym's own; the model is one of transformers.

    Example: `{"name": "log_prob", "model": "tiny"}`

    Raises:
        ValueError: there is no such model, dtype or device.
        ImportError: torch or transformers is missing.
    """

    per_token = True

    def __init__(
        self,
        model: str | Path | PreTrainedModel = "tiny",
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        name: str = "log_prob",
    ):
        from textgym.language_models import load_model

        self.name = name
        with errors_of(name):
            self.model = load_model(model, device=device, dtype=dtype)
        self._decoder: Decoder | None = None
        self._mdp: TextMDP | None = None
        self._contexts: IntArray = np.empty((0, 0), np.int64)

    def score(self, generations: Generations) -> torch.Tensor:
        """(n,) float32 log-probabilities of the newest tokens.

        Raises:
            ValueError: the model embeds fewer tokens than the env's vocabulary has, or episodes have several turns.
        """
        import torch

        from textgym.language_models.decoder import Decoder
        from textgym.language_models.forward import check_model, logits_of

        generations.mdp.refuse_turns(f"scorer {self.name!r}, which reads every token as the policy's,")
        if self._decoder is None or generations.mdp != self._mdp:
            check_model(self.model, generations.mdp)
            self._decoder, self._mdp = Decoder(self.model, generations.mdp), generations.mdp
            self._contexts = np.empty((0, 0), np.int64)
        tokens = self._update_contexts(generations)  # (n,)
        hidden, _ = self._decoder.hidden(torch.from_numpy(self._contexts))  # (N, H)
        with torch.no_grad():
            logits = logits_of(self.model, hidden[generations.rows], generations.mdp.vocab_size)  # (n, V)
        return logits.log_softmax(-1)[np.arange(len(tokens)), tokens]

    def _update_contexts(self, generations: Generations) -> IntArray:
        """Write the rows without their newest tokens into `self._contexts`, (N, P + T); return these tokens, (n,).

        N is the number of rows of the vector env. Rows that are not asked about stay as they are, because the decoder
        goes on from its cache only where each row is the same or has grown.
        """
        rows, contexts = generations.rows, generations.observations.copy()
        newest = np.arange(len(contexts)), generations.mdp.max_prompt_tokens + generations.lengths - 1
        tokens = contexts[newest]
        contexts[newest] = generations.mdp.pad_id
        if (generations.lengths == 1).all():  # all rows start together; N may be another one than before
            self._contexts = self._contexts[:0]
        if (more := int(rows.max()) + 1 - len(self._contexts)) > 0:  # any real context will do until the row's own
            fill = np.repeat(contexts[:1], more, axis=0)
            self._contexts = np.concatenate([self._contexts, fill]) if len(self._contexts) else fill
        self._contexts[rows] = contexts
        return tokens

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the decoder's cache, which the next call rebuilds."""
        return {**self.__dict__, "_decoder": None}
