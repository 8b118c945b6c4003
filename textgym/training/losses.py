"""Losses of policy-gradient agents: pure functions, token by token; `gradient_step` makes one number of them."""

from __future__ import annotations

from typing import Literal

import torch

KLEstimator = Literal["k1", "k2", "k3"]


def policy_gradient_loss(log_probs: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """-A_t log pi(a_t | s_t), whose gradient is the policy gradient's estimate (Williams 1992).

    Args:
        log_probs: (B, T) with gradient.
        advantages: (B, T), constants.

    Returns:
        (B, T)
    """
    return -advantages.detach() * log_probs


def clipped_loss(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, advantages: torch.Tensor, clip_range: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t), rho_t = pi(a_t | s_t) / pi_old(a_t | s_t).

    Schulman et al. 2017, eq. 7.

    Args:
        log_probs: (B, T) with gradient.
        old_log_probs: (B, T), constants.
        advantages: (B, T), constants.
        clip_range: eps.

    Returns:
        the loss (B, T), and where rho_t lies outside the clip range, (B, T) float32.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = -torch.minimum(advantages * ratio, advantages * clipped)
    return loss, ((ratio - 1).abs() > clip_range).float()


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip_range: float | None
) -> torch.Tensor:
    """(R_t - V_t)^2, with V_t kept within `clip_range` of its old value, as in stable-baselines3.

    Args:
        values: (B, T) with gradient.
        old_values: (B, T), constants.
        returns: (B, T), constants.
        clip_range: in units of the return; None for no clipping.

    Returns:
        (B, T)
    """
    if clip_range is not None:
        values = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return (returns - values) ** 2


def kl_estimate(log_ratios: torch.Tensor, estimator: KLEstimator) -> torch.Tensor:
    """An estimate of KL(pi || a) for a token drawn from pi, from log pi - log a (Schulman 2020).

    `"k1"`, log pi - log a: unbiased; as a loss its gradient is 0 in expectation. `"k2"`, (log pi - log a)^2 / 2:
    biased, but the gradient of its expectation over on-policy samples, samples held fixed, is the KL's. `"k3"`,
    a/pi - 1 - log(a/pi): never negative; unbiased where E_pi[a/pi] = 1, so not for a policy that top-k or top-p
    truncates; its gradient is not the KL's (it is KL(a || pi)'s).

    Args:
        log_ratios: any shape.
        estimator: see above.

    Returns:
        the same shape.
    """
    if estimator == "k1":
        return log_ratios
    if estimator == "k2":
        return log_ratios**2 / 2
    return torch.expm1(-log_ratios) + log_ratios
