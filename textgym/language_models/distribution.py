"""From a language model's logits to the policy's next-token distribution, the same in sampling and in training."""

from __future__ import annotations

import torch
from torch import nn
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from textgym.arguments import CheckedArguments, Count, Positive, PositiveShare
from textgym.mdp import TextMDP

LOWEST = torch.finfo(torch.float32).min
"""Logit of an impossible token: finite, so that entropies and gradients are."""


class TokenDistribution(CheckedArguments, nn.Module):
    """The env's masks, recomputed from the state, then temperature, top-k and top-p, as transformers orders them.

    Args:
        mdp: the env's MDP.
        temperature: logits are divided by it.
        top_k: only the k most likely tokens remain; None keeps all.
        top_p: only the most likely tokens with this much probability together remain; None keeps all.

    Raises:
        ValueError: a temperature that is not positive, a top_k below 1, a top_p outside (0, 1].

    Attributes:
        truncation: `top_k` and `top_p` by name, where they are set; empty where every text stays possible.
    """

    def __init__(
        self,
        mdp: TextMDP,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: PositiveShare | None = None,
    ):
        super().__init__()
        self.mdp, self.temperature = mdp, temperature
        self._allowed: torch.Tensor
        self._eos: torch.Tensor
        self.register_buffer("_allowed", torch.from_numpy(mdp.allowed), persistent=False)
        self.register_buffer("_eos", torch.from_numpy(mdp.is_eos).nonzero().flatten(), persistent=False)
        self._warm, self._truncate = LogitsProcessorList(), LogitsProcessorList()
        if temperature != 1:
            self._warm.append(TemperatureLogitsWarper(float(temperature)))
        self.truncation = {n: value for n, value in (("top_k", top_k), ("top_p", top_p)) if value is not None}
        if top_k is not None:
            self._truncate.append(TopKLogitsWarper(top_k, filter_value=LOWEST))
        if top_p is not None:
            self._truncate.append(TopPLogitsWarper(float(top_p), filter_value=LOWEST))

    def refuse_truncation(self, reason: str) -> None:
        """Raise a ValueError with the reason where top-k or top-p is set."""
        for name, value in self.truncation.items():
            raise ValueError(f"{name} is {value}; {reason}")

    def log_probs(
        self, logits: torch.Tensor, lengths: torch.Tensor, chosen: torch.Tensor | None = None, truncate: bool = True
    ) -> torch.Tensor:
        """Log-probabilities of all tokens.

        Args:
            logits: (M, V) float32 of the model.
            lengths: (M,) completion tokens already written.
            chosen: (M,) tokens that were drawn once, and so stay possible where a changed policy would truncate them.
            truncate: False leaves top-k and top-p out, as for a reference model.

        Returns:
            (M, V) float32.
        """
        logits = self._warm(None, logits)  # first, as it could make a masked logit infinite; they read no token ids
        if not self.mdp.allowed.all():
            logits = logits.masked_fill(~self._allowed, LOWEST)
        if self.mdp.min_new_tokens:  # a few columns: an (M, V) mask would cost as much as the softmax
            too_short = (lengths < self.mdp.min_new_tokens).unsqueeze(-1)
            logits = logits.index_copy(-1, self._eos, logits[:, self._eos].masked_fill(too_short, LOWEST))
        if truncate and self._truncate:
            kept = self._truncate(None, logits)
            if chosen is not None:
                kept = kept.scatter(-1, chosen[:, None], logits.gather(-1, chosen[:, None]))
            logits = kept
        return logits.log_softmax(-1)


def choose(
    log_probs: torch.Tensor, live: torch.Tensor, deterministic: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens for the rows that have not ended.

    Args:
        log_probs: (n, V) of these rows.
        live: (N,) bool on the CPU, True at n rows.
        deterministic: the likeliest token in place of a sample.

    Returns:
        tokens (N,) int64 and their log-probabilities (N,); 0 for rows that have ended.

    Raises:
        FloatingPointError: the logits were not finite.
    """
    chosen = log_probs.argmax(-1) if deterministic else sample(log_probs)
    chosen_log_probs = log_probs.gather(-1, chosen[:, None]).squeeze(-1)
    if not torch.isfinite(chosen_log_probs).all():
        raise FloatingPointError("the policy's logits are not finite")
    if live.all():
        return chosen, chosen_log_probs
    live = live.to(chosen.device)
    actions, all_log_probs = chosen.new_zeros(len(live)), chosen_log_probs.new_zeros(len(live))
    actions[live], all_log_probs[live] = chosen, chosen_log_probs
    return actions, all_log_probs


def sample(log_probs: torch.Tensor, drawn: torch.Tensor | None = None) -> torch.Tensor:
    """One token per row, (M, V) -> (M,), by inverting the distribution function.

    It takes one random number per row, where `torch.multinomial` takes one per token of the vocabulary.

    Args:
        log_probs: (M, V).
        drawn: the random numbers, (M,) float64 in [0, 1); None draws them from torch's own generator.
    """
    cumulative = log_probs.double().exp().cumsum(-1)
    if drawn is None:
        drawn = torch.rand(len(log_probs), dtype=torch.float64, device=log_probs.device)
    return (
        torch.searchsorted(cumulative, drawn[:, None] * cumulative[:, -1:], right=True)
        .squeeze(-1)
        .clamp(max=log_probs.shape[-1] - 1)
    )
