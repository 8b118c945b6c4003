"""Optimal policies, values of any policy, and exact gradients, all by backward dynamic programming on a `TokenTree`.

Transitions are deterministic and the tree is finite, so one pass from the leaves to the root is exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from textgym.exact.tree import TokenTree
from textgym.matching import Divergence


class Solution(NamedTuple):
    """A policy with its values, float64.

    Attributes:
        policy: (S, K + 1) log-probabilities of the actions; logits for every function that takes logits.
        values: (S,) V(s); `values[0]` is that of the start.
        q_values: (S, K + 1) Q(s, a).
    """

    policy: torch.Tensor
    values: torch.Tensor
    q_values: torch.Tensor


def greedy(q_values: Any) -> torch.Tensor:
    """The greedy policy of Q-values, as log-probabilities, (S, K + 1) -> (S, K + 1); ties share the probability."""
    table = torch.as_tensor(q_values, dtype=torch.float64)
    best = table == table.max(-1, keepdim=True).values
    return best.double().log().log_softmax(-1)


def hard_optimal(tree: TokenTree, rewards: Any, gamma: float = 1.0) -> Solution:
    """The policy of the highest expected return: V(s) = max_a Q(s,a). What Q-learning must find.

    Args:
        tree: contexts and outcomes.
        rewards: (X,) paid with the last action of each outcome, or (S, K + 1) paid per action.
        gamma: discount per action: an outcome of n actions is worth gamma^(n - 1) times its reward.

    Returns:
        the greedy policy, V and Q.
    """
    values, q_values = tree.backup(rewards, lambda q, _: q.max(-1).values, gamma)
    return Solution(greedy(q_values), values, q_values)


def soft_optimal(tree: TokenTree, reference_logits: Any, rewards: Any, beta: float) -> Solution:
    """The policy of the highest E_pi[r] - beta KL(pi || a), where a is the reference.

    Over tokens k, V(s) = beta log sum_k a(k|s) exp(Q(s,k) / beta) and pi(k|s) = a(k|s) exp((Q(s,k) - V(s)) / beta).
    This policy samples outcomes from p(x) = a(x) exp(r(x) / beta) / Z, and V of the start is beta log Z. KL-penalised
    agents and soft Q-learning must find it.

    Args:
        tree: contexts and outcomes.
        reference_logits: (S, K + 1) of a.
        rewards: (X,) paid with the last action of each outcome, or (S, K + 1) paid per action.
        beta: reward per nat.

    Returns:
        pi, V and Q.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be positive (hard_optimal is the limit at 0)")
    log_a = tree.log_policy(reference_logits)
    values, q_values = tree.backup(rewards, lambda q, level: beta * (log_a[level] + q / beta).logsumexp(-1))
    return Solution(log_a + (q_values - values[:, None]) / beta, values, q_values)


def evaluate_policy(tree: TokenTree, logits: Any, rewards: Any, gamma: float = 1.0) -> Solution:
    """The values of a given policy: V(s) = sum_a pi(a|s) Q(s,a), what a critic must learn.

    Args:
        tree: contexts and outcomes.
        logits: (S, K + 1) of pi.
        rewards: (X,) paid with the last action of each outcome, or (S, K + 1) paid per action.
        gamma: discount per action.

    Returns:
        pi, V and Q; V of the start is the expected return.
    """
    log_pi = tree.log_policy(logits)
    values, q_values = tree.backup(rewards, lambda q, level: (log_pi[level].exp() * q).sum(-1), gamma)
    return Solution(log_pi, values, q_values)


def gradient(tree: TokenTree, divergence: Divergence, logits: Any, log_p: Any) -> torch.Tensor:
    """The gradient of D_f(pi || p) with respect to the logits of a tabular policy.

    Args:
        tree: contexts and outcomes.
        divergence: from `textgym.matching.make_divergence`.
        logits: (S, K + 1) of pi, finite.
        log_p: (X,) log-probabilities of the target; -inf where it has no mass.

    Returns:
        (S, K + 1). Where pi(x) = p(x) exactly, total variation has a kink, and the subgradient 0 is taken.

    Raises:
        ValueError: the divergence is infinite, because pi has mass where p has none.
    """
    parameters = torch.as_tensor(logits, dtype=torch.float64).detach().clone().requires_grad_()
    value = divergence.exact(tree.log_probs(parameters), torch.as_tensor(log_p, dtype=torch.float64))
    if not value.isfinite():
        raise ValueError(f"{divergence.name} of this policy and target is {value.item()}; it has no gradient there")
    return torch.autograd.grad(value, parameters)[0]
