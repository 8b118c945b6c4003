"""What a sample of a policy says about its texts beside their distances to a target."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from textgym.matching import Estimate, WeightedSample, jackknife
from textgym.metrics import distinct_n, self_bleu
from textgym.training import Episodes


def entropy_per_token(sample: WeightedSample) -> Estimate:
    """The entropy of a policy in nats per token, from samples of itself whose features hold their `"length"`."""
    weights = torch.full_like(sample.log_pi, 1 / len(sample.log_pi), requires_grad=True)
    return jackknife((weights @ -sample.log_pi) / (weights @ sample.features["length"]), weights)


def variety(episodes: Episodes, decode_batch: Callable[[list[list[int]]], list[str]]) -> dict[str, Estimate]:
    """`distinct_1` to `distinct_3` and `self_bleu` of the completions, which have no standard error.

    Args:
        episodes: whose completions.
        decode_batch: of the tokenizer, token ids -> texts.
    """
    tokens = [row[real].tolist() for row, real in zip(episodes.actions.cpu(), episodes.mask.cpu(), strict=True)]
    values = {f"distinct_{n}": distinct_n(tokens, n) for n in (1, 2, 3)} | {
        "self_bleu": self_bleu(decode_batch(tokens))
    }
    return {name: Estimate(value, math.nan) for name, value in values.items()}
