"""Random models of any architecture of transformers."""

import torch

DEEPSEEK = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
"""Arguments of `small("DeepseekV3")`, whose values are wider than its keys."""


def small(name, vocab_size=8, **kwargs):
    """A random model of some architecture, by the prefix of its class."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": vocab_size, "max_position_embeddings": 64, "initializer_range": 0.2}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = getattr(transformers, f"{name}Config")(**{**sizes, **special, **kwargs})
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()
