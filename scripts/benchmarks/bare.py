"""What the benchmarks compare with: plain transformers and torch loops on the same model, prompts and lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from agents.offline import TextData
from textgym import TextMDP
from textgym.language_models import load_model
from textgym.mdp import IntArray

SHAPES: dict[str, dict[str, int]] = {
    "random-4m": {
        "vocab_size": 3072,
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "random-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "random-1.5b": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
}
"""Llamas with random weights, for speed alone: the embedded model's shape, SmolLM2-135M's and Qwen2.5-1.5B's."""


def model_of(name: str, device: str) -> Any:
    """A model by the loader's names, or of one of `SHAPES`."""
    if name not in SHAPES:
        return load_model(name, device=device)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[name],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.device(device):
        return LlamaForCausalLM(config).eval()


def end_at_random(model: Any, eos: int, probability: float) -> None:
    """Make EOS have this probability after every context, so that lengths are geometric whatever the model is."""

    def set_eos(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        others = logits.clone()
        others[..., eos] = -torch.inf
        odds = math.log(probability / (1 - probability))
        return logits.index_copy(
            -1, torch.tensor([eos], device=logits.device), (others.logsumexp(-1, keepdim=True) + odds).to(logits.dtype)
        )

    model.get_output_embeddings().register_forward_hook(set_eos)


class BareLoops:
    """Sampling and training without a library, on one batch of prompts of equal length.

    Args:
        model: a causal LM.
        mdp: the env's MDP.
        prompts: (N, P) int64 without padding.
        dtype: `"bfloat16"` runs the loops under autocast.
    """

    def __init__(self, model: Any, mdp: TextMDP, prompts: torch.Tensor, dtype: str):
        self.model, self.mdp, self.prompts = model, mdp, prompts
        self.eos = list(mdp.eos_token_ids)
        self.autocast = torch.autocast(prompts.device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def real(self, completions: torch.Tensor) -> torch.Tensor:
        """Where completions have not ended before, (N, T) bool."""
        is_eos = torch.isin(completions, torch.tensor(self.eos, device=completions.device)).long()
        return is_eos.cumsum(-1) - is_eos == 0

    @torch.no_grad()
    def generate(self, batches: int) -> int:
        """Transformers' `generate`; returns the number of real tokens."""
        tokens, limit = 0, self.mdp.max_new_tokens
        for _ in range(batches):
            with self.autocast:
                output = self.model.generate(
                    input_ids=self.prompts,
                    attention_mask=torch.ones_like(self.prompts),
                    max_new_tokens=limit,
                    min_new_tokens=self.mdp.min_new_tokens or None,
                    eos_token_id=self.eos,
                    pad_token_id=self.eos[0],
                    do_sample=True,
                    top_k=0,
                    top_p=1.0,
                    temperature=1.0,
                )
            tokens += int(self.real(output[:, self.prompts.shape[1] :]).sum())
        return tokens

    def generate_batch(self, batches: int) -> int:
        """Transformers' continuous batching, asked for all batches at once; returns the number of real tokens.

        The cache has pages of 8 tokens for as many texts of full length as a batch has: a text holds few pages that it
        does not fill, and attention on a CPU reads all that there are.
        """
        (rows, prompt_tokens), limit, page = self.prompts.shape, self.mdp.max_new_tokens, 8
        generated = self.model.generate_batch(
            self.prompts.tolist() * batches,
            generation_config=GenerationConfig(
                max_new_tokens=limit,
                eos_token_id=None if self.mdp.min_new_tokens else self.eos,
                pad_token_id=self.eos[0],
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=page, num_blocks=rows * math.ceil((prompt_tokens + limit) / page), max_batch_tokens=8 * rows
            ),
        )
        return sum(len(output.generated_tokens) for output in generated.values())

    @torch.no_grad()
    def decode(self, batches: int) -> int:
        """A decode loop on transformers' dynamic cache until all rows have ended; returns the number of real tokens."""
        tokens = 0
        for _ in range(batches):
            ids, cache, chosen = self.prompts, None, []
            live = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
            for step in range(self.mdp.max_new_tokens):
                with self.autocast:
                    output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, logits = output.past_key_values, output.logits[:, -1].float()
                if step < self.mdp.min_new_tokens:
                    logits[:, self.eos] = -torch.inf
                ids = torch.multinomial(logits.softmax(-1), 1)
                chosen.append(ids)
                live &= ~torch.isin(ids[:, 0], torch.tensor(self.eos, device=ids.device))
                if not live.any():
                    break
            tokens += int(self.real(torch.cat(chosen, 1)).sum())
        return tokens

    def train(self, rows: torch.Tensor, optimizer: torch.optim.Optimizer, passes: int = 1) -> int:
        """Forward, backward and a step on padded rows, (B, P + T) with the pad id; returns the number of real tokens.

        Args:
            rows: last observations.
            optimizer: of the model's parameters.
            passes: 2 adds a forward pass without gradient, which stands for the reference's.
        """
        width = rows.shape[1] - self.prompts.shape[1]
        real = rows != self.mdp.pad_id
        for _ in range(passes - 1):
            with torch.no_grad():
                self._log_probs(rows, real, width)
        loss = -self._log_probs(rows, real, width)[real[:, -width:]].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return int(real[:, -width:].sum())

    def _log_probs(self, rows: torch.Tensor, real: torch.Tensor, width: int) -> torch.Tensor:
        ids = rows.masked_fill(~real, 0)
        with self.autocast:
            output = self.model(input_ids=ids, attention_mask=real.long(), use_cache=False, logits_to_keep=width + 1)
        log_probs = output.logits[:, :-1].float().log_softmax(-1)
        return log_probs.gather(-1, ids[:, -width:, None]).squeeze(-1)


def random_pairs(mdp: TextMDP, prompts: IntArray, ragged: bool) -> TextData:
    """Four pairs of completions of each prompt: random tokens, to the limit or of geometric lengths, a third of T.

    Args:
        mdp: the env's MDP.
        prompts: (N, P) int64 without padding.
        ragged: whether lengths differ.
    """
    rng, limit = np.random.default_rng(0), mdp.max_new_tokens
    prompts = np.repeat(prompts, 8, axis=0)
    lengths = np.minimum(rng.geometric(3 / limit if ragged else 1e-9, len(prompts)), limit)
    completions = rng.integers(300, 2000, (len(prompts), limit))
    places = np.arange(limit)
    completions[(places == lengths[:, None] - 1) & (lengths < limit)[:, None]] = mdp.eos_token_ids[0]
    completions[places >= lengths[:, None]] = mdp.pad_id
    rows = np.concatenate([prompts, completions], 1).astype(np.int32)
    return TextData(mdp, rows, np.arange(len(rows)) % 2 == 0, np.arange(0, len(rows) + 1, 2))


def round_trip_prompts(tokenizer: Any, tokens: int, count: int) -> list[str]:
    """Texts of exactly `tokens` tokens each, of words that are one token with the space before them."""
    texts = {i: tokenizer.decode([i]) for i in range(300, 2000)}
    words = [i for i, text in texts.items() if text[:1] == " " and text[1:].isalpha() and tokenizer.encode(text) == [i]]
    return [tokenizer.decode(ids) for ids in np.random.default_rng(0).choice(words, (count, tokens)).tolist()]
