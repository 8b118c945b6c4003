"""Losses that compare texts of one prompt: pure functions of numbers per text.

    r(x) = beta (f'(pi(x) / a(x)) - f'(1))        the implicit reward of a text under a policy pi and a reference a

of f-DPO (Wang et al. 2024, arXiv 2309.16240): where pairs are drawn from all texts, and labelled by Bradley-Terry with
a reward, the sigmoid loss is least where r is this reward plus a constant, that is, where pi maximises E[reward] -
beta D_f(pi || a). With the reverse KL r is beta log(pi / a), and pi is a exp(reward / beta) / Z (DPO; Rafailov et al.
2023, arXiv 2305.18290). An f' that is finite at 0 has no such optimum, because pi may then have to be 0.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from textgym.matching.divergences import DIVERGENCES, Divergence

PreferenceLoss = Literal["sigmoid", "ipo"]


def check_invertible(divergence: Divergence) -> None:
    """Refuse, with a ValueError, a divergence whose f' does not go to -inf at 0."""

    def usable(one: Divergence) -> bool:
        return math.isinf(one.pseudo_reward(torch.tensor(-math.inf, dtype=torch.float64)).item())

    if not usable(divergence):
        names = [*(name for name, one in DIVERGENCES.items() if usable(one)), "alpha"]
        raise ValueError(
            f"f_divergence_type is {divergence.name!r}, whose f' is finite at 0, so that it defines no implicit "
            f"reward; accepted are {names}"
        )


def implicit_rewards(log_ratios: torch.Tensor, divergence: Divergence, beta: float) -> torch.Tensor:
    """The implicit rewards beta (f'(pi / a) - f'(1)) of texts, (n,) -> (n,).

    Args:
        log_ratios: log pi(x) - log a(x) of whole texts, float64 because f' may grow exponentially.
        divergence: D_f(pi || a), `check_invertible`.
        beta: reward per unit of it.
    """
    return -beta * divergence.pseudo_reward(log_ratios)


def preference_loss(
    margins: torch.Tensor, loss_type: PreferenceLoss, beta: float, label_smoothing: float = 0.0
) -> torch.Tensor:
    """(1 - eps) l(m) + eps l(-m) of pairs, m = r(chosen) - r(rejected); (n,) -> (n,).

    `"sigmoid"` is DPO's l(m) = -log sigmoid(m), `"ipo"` l(m) = (m / beta - 1 / (2 beta))^2 (Azar et al. 2023, arXiv
    2310.12036, eq. 17), whose optimum stays finite where all raters agree.

    Args:
        margins: differences of implicit rewards.
        loss_type: l.
        beta: that of the rewards.
        label_smoothing: eps, the probability that a label is wrong (conservative DPO; Mitchell 2023).
    """

    def loss(m: torch.Tensor) -> torch.Tensor:
        return -logsigmoid(m) if loss_type == "sigmoid" else ((m - 0.5) / beta) ** 2

    return (1 - label_smoothing) * loss(margins) + label_smoothing * loss(-margins)


def ranked_pairs(groups: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """All pairs of one group in which the first has the larger value; ties make none.

    Args:
        groups: (B,) int64.
        values: (B,)

    Returns:
        (n, 2) int64 indices.
    """
    return ((groups[:, None] == groups) & (values[:, None] > values)).nonzero()


def pair_statistics(pairs: torch.Tensor, rewards: torch.Tensor, log_probs: torch.Tensor) -> dict[str, float]:
    """Means over pairs, by the names of TRL's `DPOTrainer`.

    Args:
        pairs: (n, 2) indices of a chosen and a rejected text.
        rewards: (B,) of all texts.
        log_probs: (B, T) of their tokens, 0 at padding.
    """
    sides, sums = zip(("chosen", "rejected"), pairs.T, strict=True), log_probs.double().sum(-1)
    margins = rewards[pairs[:, 0]] - rewards[pairs[:, 1]]
    means = {"rewards/margins": margins, "rewards/accuracies": (margins > 0).double()}
    for side, index in sides:
        means |= {f"rewards/{side}": rewards[index], f"logps/{side}": sums[index]}
    return dict(zip(means, torch.stack([values.mean() for values in means.values()]).tolist(), strict=True))
