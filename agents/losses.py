"""Losses of policy-gradient agents: pure functions, summed over tokens; `gradient_step` divides by their number."""

from __future__ import annotations

import torch


def policy_gradient_loss(log_probs: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """-sum_t A_t log pi(a_t | s_t), whose gradient is the policy gradient's estimate (Williams 1992).

    Args:
        log_probs: (B, T) with gradient, 0 at padding.
        advantages: (B, T), constants.

    Returns:
        a scalar.
    """
    return -(advantages.detach() * log_probs).sum()
