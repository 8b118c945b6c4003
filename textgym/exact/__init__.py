"""Exact answers on small token MDPs, to test agents against: see docs/exact.md."""

from textgym.exact.answers import AnswerTree
from textgym.exact.credit import CreditComparison, CreditOracle
from textgym.exact.gradients import Batch, Moments, expected_gradient, fixed_point, sampled_gradient
from textgym.exact.measures import (
    Optimum,
    best_of_log_probs,
    entropy,
    expectation,
    kl,
    optimum_within,
    pass_at,
    target_log_probs,
)
from textgym.exact.objectives import Objective
from textgym.exact.solutions import Solution, evaluate_policy, gradient, greedy, hard_optimal, soft_optimal
from textgym.exact.tree import TokenTree

__all__ = [
    "AnswerTree",
    "Batch",
    "CreditComparison",
    "CreditOracle",
    "Moments",
    "Objective",
    "Optimum",
    "Solution",
    "TokenTree",
    "best_of_log_probs",
    "entropy",
    "evaluate_policy",
    "expectation",
    "expected_gradient",
    "fixed_point",
    "gradient",
    "greedy",
    "hard_optimal",
    "kl",
    "optimum_within",
    "pass_at",
    "sampled_gradient",
    "soft_optimal",
    "target_log_probs",
]
