"""The configuration of a `TabularLM`, which transformers has to know to load the tokenizer beside one."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig


class TabularConfig(PretrainedConfig):
    """K = `num_tokens` ordinary tokens, EOS = BOS = K, completions of at most L = `max_new_tokens` tokens."""

    model_type = "textgym_tabular"
    num_tokens: int = 1
    max_new_tokens: int = 1

    def __init__(self, num_tokens: int = 1, max_new_tokens: int = 1, **kwargs: Any):
        self.num_tokens, self.max_new_tokens = num_tokens, max_new_tokens
        self.vocab_size = self.hidden_size = num_tokens + 1
        self.num_hidden_layers = 1
        self.max_position_embeddings = max_new_tokens + 1
        kwargs = {"bos_token_id": num_tokens, "eos_token_id": num_tokens, "tie_word_embeddings": False} | kwargs
        super().__init__(**kwargs)


AutoConfig.register(TabularConfig.model_type, TabularConfig)
