"""Exact answers on small token MDPs, to test agents against: see docs/exact.md."""

from textgym.exact.solutions import Solution, evaluate_policy, gradient, greedy, hard_optimal, soft_optimal
from textgym.exact.tree import TokenTree

__all__ = ["Solution", "TokenTree", "evaluate_policy", "gradient", "greedy", "hard_optimal", "soft_optimal"]
