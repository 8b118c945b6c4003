"""Losses that learn from what people prefer: pure functions of the scores of texts, one value for each comparison.

A score is a reward or a similarity, any number, and more is better. In each comparison one text is the preferred one.
The squared error of a rating is left out, since torch has it (`torch.nn.functional.mse_loss`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def bradley_terry_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    margin: torch.Tensor | None = None,
    tie: torch.Tensor | None = None,
    log_nu: torch.Tensor | None = None,
) -> torch.Tensor:
    """-log of the probability of what a rater said of two texts.

    Without ties this is Bradley and Terry's model (1952), -log sigmoid(d), where d = chosen - rejected - margin (the
    margin as in Touvron et al. 2023, eq. 2). With ties it is Davidson's (1970, eq. 2.3): a tie is a third outcome, and

        P(chosen) : P(tie) : P(rejected) = exp(d / 2) : nu : exp(-d / 2),

    in which P(chosen) : P(rejected) is still Bradley and Terry's, and nu = 0 gives their model.

    Args:
        chosen: (B,) scores of the preferred texts.
        rejected: (B,) scores of the others.
        margin: (B,) by how much the first should be ahead; None is 0.
        tie: (B,) bool, where neither was preferred; needs `log_nu`.
        log_nu: () log of nu, which is learned beside the scores; None where no tie can happen.

    Returns:
        (B,)
    """
    gap = chosen - rejected if margin is None else chosen - rejected - margin  # (B,)
    if tie is None or log_nu is None:
        return -F.logsigmoid(gap)
    logits = torch.stack([gap / 2, log_nu.expand_as(gap), -gap / 2], -1)  # (B, 3)
    return F.cross_entropy(logits, tie.long(), reduction="none")


def info_nce_loss(
    positive: torch.Tensor, negatives: torch.Tensor, mask: torch.Tensor | None = None, temperature: float = 1.0
) -> torch.Tensor:
    """-log exp(s+ / tau) / sum of exp(s / tau) over the positive and its negatives (van den Oord et al. 2018, eq. 4).

    It is the cross-entropy of picking the positive out of N = n + 1 candidates, so that log N - loss is a lower bound
    on the mutual information, and can show no more than log N of it. With one negative and tau = 1 it is Bradley and
    Terry's.

    Args:
        positive: (B,) scores s+.
        negatives: (B, n) scores of the negatives.
        mask: (B, n) bool, False where a row has fewer negatives; None if all have n.
        temperature: tau.

    Returns:
        (B,)
    """
    if mask is not None:
        negatives = negatives.masked_fill(~mask, -torch.inf)
    scores = torch.cat([positive[:, None], negatives], -1) / temperature  # (B, 1 + n)
    return -scores.log_softmax(-1)[:, 0]


def margin_loss(positive: torch.Tensor, negative: torch.Tensor, margin: float | torch.Tensor) -> torch.Tensor:
    """max(0, m - s+ + s-): 0 once the positive is ahead by the margin (Schroff et al. 2015, eq. 2, on similarities).

    Args:
        positive: any shape, scores s+.
        negative: the same shape, scores s-.
        margin: m, in units of the score.

    Returns:
        the same shape.
    """
    return (margin - positive + negative).relu()
