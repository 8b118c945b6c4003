"""Random models of any architecture of transformers."""

import torch


def small(name, vocab_size=8, **kwargs):
    """A random model of some architecture, by the prefix of its class."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": vocab_size, "max_position_embeddings": 64, "initializer_range": 0.2}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = getattr(transformers, f"{name}Config")(**{**sizes, **special, **kwargs})
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()
