"""What KL-regularised agents maximise, of any policy on a `TokenTree`: its value, its gradient, its best policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from textgym.exact.solutions import Solution, evaluate_policy, soft_optimal
from textgym.exact.tree import TokenTree


@dataclass(frozen=True)
class Objective:
    """J(pi) = E_pi[sum_t gamma^t (r_t - beta log pi(a_t | s_t) / a(a_t | s_t))].

    Attributes:
        tree: contexts and outcomes.
        reference_logits: (S, K + 1) of a.
        rewards: (X,) paid with the last action of each outcome, or (S, K + 1) paid per action.
        beta: weight of the KL to the reference, in reward per nat; 0 leaves it out.
        gamma: discount per action.
    """

    tree: TokenTree
    reference_logits: Any
    rewards: Any
    beta: float
    gamma: float = 1.0

    @cached_property
    def reference(self) -> torch.Tensor:
        """The reference's log-probabilities, (S, K + 1)."""
        return self.tree.log_policy(self.reference_logits)

    @cached_property
    def steps(self) -> torch.Tensor:
        """What is paid for each action, (S, K + 1)."""
        return self.tree.backup(self.rewards, lambda q_values, _: q_values[:, 0], gamma=0.0)[1]

    @cached_property
    def optimum(self) -> Solution:
        """Its best policy where gamma is 1 and beta is not 0, with the values: a(x) exp(r(x) / beta) / Z."""
        return soft_optimal(self.tree, self.reference, self.rewards, self.beta)

    def evaluate(self, logits: Any) -> Solution:
        """A policy, (S, K + 1), with its V and Q, penalty included: V of the start is J.

        Q(s, a) - V(s) is what choosing a in s adds to what the policy gets: the credit that is due to it.
        """
        log_pi = self.tree.log_policy(logits)
        penalty = self.beta * (log_pi - self.reference) if self.beta else 0.0
        return evaluate_policy(self.tree, log_pi, self.steps - penalty, self.gamma)

    def value(self, logits: Any) -> torch.Tensor:
        """J of a policy, (S, K + 1) -> ()."""
        return self.evaluate(logits).values[0]

    def gradient(self, logits: Any) -> torch.Tensor:
        """The gradient of J by the logits, (S, K + 1) -> (S, K + 1)."""
        parameters = torch.as_tensor(logits, dtype=torch.float64).detach().clone().requires_grad_()
        return torch.autograd.grad(self.value(parameters), parameters)[0]
