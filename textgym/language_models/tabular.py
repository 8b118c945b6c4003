"""A causal LM that is a table: one learnable row of logits per context, for tasks small enough to enumerate.

It has the interface of a transformers model, so the agents, the decoder and the checkpoints that serve real models
serve it as well, and every result can be compared with an exact one. Its hidden state after a token is the table's row
of the context that ends there, and its head is the identity. It reads rows of one BOS token and a completion. With a
cache it keeps what attention would keep, the earlier tokens ("keys") and their positions ("values").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from textgym.contexts import table_shape
from textgym.language_models.tabular_config import TabularConfig


class Digits(nn.Module):
    """The input embedding, which is not learned: token a is the digit a + 1 of a context's number."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size

    @property
    def weight(self) -> torch.Tensor:
        """(K + 1, 1), as `nn.Embedding` has it."""
        return torch.arange(1, self.vocab_size + 1)[:, None]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(...) int64 -> (...) int64."""
        return input_ids + 1


class TabularPreTrainedModel(PreTrainedModel):
    """What trunk and LM share: the configuration, and weights that start as zeros."""

    config_class = TabularConfig
    config: TabularConfig
    base_model_prefix = "model"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TabularModel):
            nn.init.zeros_(module.table)


class TabularModel(TabularPreTrainedModel):
    """The trunk: token ids to rows of the table.

    Attributes:
        table: the only parameter, (S, K + 1) float32 logits, contexts in the order of `textgym.contexts`.
    """

    def __init__(self, config: TabularConfig):
        super().__init__(config)
        self.embed_tokens = Digits(config.vocab_size)
        self.table = nn.Parameter(torch.zeros(table_shape(config.num_tokens, config.max_new_tokens)))
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Rows of the table for every context that ends at one of the tokens.

        Where tokens do not spell a context, because they stand behind the end of a completion, the row is arbitrary.

        Args:
            input_ids: (N, Q) int64.
            attention_mask: (N, W) 1 at real tokens, all earlier ones included; or (N, 1, Q or 1, W), True or 0 where
                attended; None where all tokens are real.
            position_ids: (N, Q) int64; BOS has position 0.
            past_key_values: what `update` of layer 0 keeps: digits and positions, each (N, 1, W, 1) int64.
            use_cache: not used: the cache that is given is filled.
            **kwargs: not used; options of other architectures.

        Returns:
            `last_hidden_state`, (N, Q, K + 1).
        """
        if position_ids is None:
            position_ids = self._positions(input_ids, attention_mask, past_key_values)
        digits = self.embed_tokens(input_ids) * (position_ids > 0)  # BOS is no digit
        keys, values = digits[:, None, :, None], position_ids[:, None, :, None]
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, 0)
        distances = position_ids[:, :, None] - values[:, 0, None, :, 0]  # (N, Q, W)
        attended = distances >= 0
        if attention_mask is not None:
            mask = attention_mask[:, None] != 0 if attention_mask.ndim == 2 else attention_mask[:, 0]
            attended = attended & (mask if mask.dtype == torch.bool else mask >= 0)
        # (N, Q): sum_j (a_j + 1) K^(d-1-j); beyond L, a power could overflow
        powers = self.config.num_tokens ** distances.clamp(0, self.config.max_new_tokens)
        contexts = (keys[:, 0, None, :, 0] * powers * attended).sum(-1)
        hidden = nn.functional.embedding(contexts.clamp(max=len(self.table) - 1), self.table)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=past_key_values)

    def _positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, past_key_values: Cache | None
    ) -> torch.Tensor:
        """Positions of the fed tokens, (N, Q): they count real tokens."""
        if attention_mask is not None and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        return torch.arange(past, past + input_ids.shape[1], device=input_ids.device).expand_as(input_ids)


class TabularLM(TabularPreTrainedModel, GenerationMixin):
    """The trunk and an identity head; make one with `from_logits`."""

    def __init__(self, config: TabularConfig):
        super().__init__(config)
        self.model = TabularModel(config)
        self.lm_head = nn.Identity()
        self.post_init()

    @classmethod
    def from_logits(cls, logits: Any, max_new_tokens: int) -> TabularLM:
        """A model with the given table, copied.

        Args:
            logits: (S, K + 1) numpy or torch.
            max_new_tokens: L.

        Raises:
            ValueError: the table has not one row per context.
        """
        table = torch.as_tensor(logits).detach()
        if table.ndim != 2 or table.shape != table_shape(table.shape[1] - 1, max_new_tokens):
            wanted = f"{table_shape(table.shape[1] - 1, max_new_tokens)}" if table.ndim == 2 else "(S, K + 1)"
            raise ValueError(
                f"the table of logits has shape {tuple(table.shape)}; max_new_tokens={max_new_tokens} wants {wanted}"
            )
        model = cls(TabularConfig(num_tokens=table.shape[1] - 1, max_new_tokens=max_new_tokens)).eval()
        with torch.no_grad():
            model.table.copy_(table)
        return model

    @property
    def table(self) -> nn.Parameter:
        """The logits, (S, K + 1) float32."""
        return self.model.table

    def get_output_embeddings(self) -> nn.Module:
        """The identity: hidden states are logits."""
        return self.lm_head

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits (N, Q, K + 1); the arguments are those of `TabularModel`."""
        output = self.model(input_ids, **kwargs)
        return CausalLMOutputWithPast(
            logits=self.lm_head(output.last_hidden_state), past_key_values=output.past_key_values
        )


AutoModelForCausalLM.register(TabularConfig, TabularLM)
