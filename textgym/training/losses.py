"""Losses of policy-gradient agents: pure functions, token by token; `gradient_step` makes one number of them."""

from __future__ import annotations

import math
from typing import Literal

import torch

KLEstimator = Literal["k1", "k2", "k3"]
ImportanceLevel = Literal["token", "sequence", "product"]


def importance_ratios(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, mask: torch.Tensor, level: ImportanceLevel = "token"
) -> torch.Tensor:
    """What a sampled token's loss is weighted by where the policy pi is no longer the one that sampled, pi_old.

    With l_t = log pi(x_t | s_t) - log pi_old(x_t | s_t), the values are: `"token"`, exp(l_t) (PPO); `"sequence"`,
    exp(mean_t l_t), one for all tokens of an episode (GSPO, Zheng et al. 2025, arXiv 2507.18071, eq. 7); `"product"`,
    exp(sum_t l_t) = pi(x) / pi_old(x), with which alone expectations under pi_old become those under pi. The derivative
    of a ratio by the log-probability of its own token is the ratio, and by all others 0 (GSPO-token, eq. 14): where
    the tokens of an episode have one advantage, that is GSPO's gradient times the length, and `"product"`'s own.

    Args:
        log_probs: (B, T) with gradient.
        old_log_probs: (B, T), constants.
        mask: (B, T) bool, True at real tokens.
        level: see above.

    Returns:
        (B, T)
    """
    log_ratios = log_probs - old_log_probs
    if level == "token":
        return log_ratios.exp()
    total = (log_ratios.detach() * mask).sum(-1, keepdim=True)  # (B, 1)
    if level == "sequence":
        total = total / mask.sum(-1, keepdim=True)
    return (total + log_probs - log_probs.detach()).exp()


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
    ratios: torch.Tensor,
    advantages: torch.Tensor,
    clip_range: float,
    clip_range_high: float | None = None,
    delta: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(min(rho_t, delta) A_t, clip(rho_t, 1 - eps, 1 + eps_high) A_t).

    Schulman et al. 2017, eq. 7, for eps_high = eps and delta = infinity. A larger eps_high lets rare tokens gain more
    (clip-higher: DAPO, Yu et al. 2025, arXiv 2503.14476, eq. 10); delta bounds the loss where A_t < 0, which is
    otherwise unbounded (two-sided clip: dual-clip PPO, Ye et al. 2020, arXiv 1912.09729; INTELLECT-2, arXiv
    2505.07291).

    Args:
        ratios: rho, (B, T) with gradient (`importance_ratios`).
        advantages: (B, T), constants.
        clip_range: eps.
        clip_range_high: eps_high; None takes eps.
        delta: above 1 + eps_high; None takes infinity.

    Returns:
        the loss (B, T), and where rho_t lies outside the clip range, (B, T) float32.
    """
    low, high = 1 - clip_range, 1 + (clip_range if clip_range_high is None else clip_range_high)
    loss = -torch.minimum(advantages * ratios.clamp(max=delta or math.inf), advantages * ratios.clamp(low, high))
    return loss, ((ratios < low) | (ratios > high)).float()


def truncated_loss(
    log_probs: torch.Tensor, ratios: torch.Tensor, advantages: torch.Tensor, clip_max: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(rho_t, c) A_t log pi(a_t | s_t), with the ratio as a constant, so that no token loses its gradient.

    CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4) where the ratio is the token's; truncated importance sampling
    (Ionides 2008) of whole episodes where it is `"product"`.

    Args:
        log_probs: (B, T) with gradient.
        ratios: rho, (B, T) (`importance_ratios`).
        advantages: (B, T), constants.
        clip_max: c.

    Returns:
        the loss (B, T), and where rho_t exceeds c, (B, T) float32.
    """
    weights = ratios.detach()
    return policy_gradient_loss(log_probs, weights.clamp(max=clip_max) * advantages), (weights > clip_max).float()


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


def kl_loss(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, reference_log_probs: torch.Tensor, estimator: KLEstimator
) -> torch.Tensor:
    """A loss whose expected on-policy gradient is that of KL(pi(. | s_t) || a(. | s_t)) in each state that was met.

    `"k2"` as it is, and rho_t times `"k3"` (DeepSeek-V3.2, arXiv 2512.02556; TRL's `use_bias_correction_kl`), which is
    so off-policy, too. Neither counts that a token also leads to states of more or less KL, so neither has the gradient
    of the KL of whole texts; k1 in the reward has.

    Args:
        log_probs: (B, T) with gradient.
        old_log_probs: (B, T), constants, of the policy that sampled.
        reference_log_probs: (B, T), constants.
        estimator: `"k2"` or `"k3"`.

    Returns:
        (B, T)
    """
    estimate = kl_estimate(log_probs - reference_log_probs, estimator)
    return estimate * (log_probs - old_log_probs).exp() if estimator == "k3" else estimate
