"""The credit that each token deserves, exactly, and how near an estimate of it comes, on a `TokenTree`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from textgym.exact.objectives import Objective


class CreditComparison(NamedTuple):
    """How near credits are to the advantages A = Q - V of a policy.

    Attributes:
        correlation: over the tokens of sampled episodes.
        error: the root of the mean squared difference over the same tokens, in units of reward.
        cosine: of the policy gradient that the credits give in expectation, with the exact one.
        bias: the length of the difference of these two gradients, in lengths of the exact one.
        noise: the standard deviation of the gradient that one episode gives, in lengths of the exact one; its square is
            the number of episodes whose mean is off by as much as there is to find.
    """

    correlation: float
    error: float
    cosine: float
    bias: float
    noise: float


class CreditOracle:
    """V, Q and A of a policy, for the tokens of completions.

    Args:
        objective: what is paid; its penalty counts.
        logits: (S, K + 1) of the policy, finite.

    Attributes:
        solution: the policy with its V and Q.
        advantages: A = Q - V, (S, K + 1).
    """

    def __init__(self, objective: Objective, logits: Any):
        self.objective, self.solution = objective, objective.evaluate(logits)
        self.advantages = self.solution.q_values - self.solution.values[:, None]

    def credit(self, completions: Any) -> torch.Tensor:
        """A(s_t, x_t) of each token: (..., L) padded token ids, EOS included -> (..., L) float64, 0 at padding."""
        return self.objective.tree.along(self.advantages, completions)

    def values(self, completions: Any) -> torch.Tensor:
        """V(s_t) of the context before each token: (..., L) -> (..., L) float64, 0 at padding."""
        return self.objective.tree.along(self.solution.values, completions)

    def compare(self, credits: torch.Tensor) -> CreditComparison:
        """Credits of all outcomes with the exact ones.

        Args:
            credits: (D, X, L), D draws of credits that are partly random; what stands at padding does not count.

        Returns:
            means over the draws of correlation, error and noise; cosine and bias of the mean over them.
        """
        tree = self.objective.tree
        real, log_pi = tree.outcomes != tree.pad_id, self.solution.policy
        mass = tree.log_probs(log_pi).exp()  # (X,)
        exact, drawn = self.credit(tree.outcomes)[real], credits[:, real].double()  # (M,), (D, M)
        visits = mass[:, None].expand(real.shape)[real]  # (M,) of each token of each outcome
        weights = visits / visits.sum()
        correlation = torch.stack([_correlation(one, exact, weights) for one in drawn]).mean()
        error = ((drawn - exact) ** 2 @ weights).mean().sqrt()
        wanted, found = self._gradient(exact, visits, real), self._gradient(drawn.mean(0), visits, real)
        # the tokens of an episode are in different contexts, so their gradients, e_a - pi(. | s), are orthogonal
        lengths = 1 - 2 * log_pi.exp() + log_pi.exp().square().sum(-1, keepdim=True)  # (S, K + 1) squared
        squares = drawn**2 @ (visits * tree.along(lengths, tree.outcomes)[real])  # (D,) E |g|^2
        noise = (squares.mean() - found.square().sum()).clamp(min=0.0).sqrt()
        cosine = (wanted * found).sum() / wanted.norm() / found.norm()
        lengths_of = (correlation, error, cosine, (found - wanted).norm() / wanted.norm(), noise / wanted.norm())
        return CreditComparison(*(float(value) for value in lengths_of))

    def _gradient(self, credits: torch.Tensor, visits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """E[sum_t credit_t grad log pi(x_t | s_t)] by the logits: (M,) -> (S, K + 1)."""
        tree = self.objective.tree
        contexts = tree.along(torch.arange(tree.num_contexts), tree.outcomes).long()[real]
        paid = torch.zeros_like(self.solution.policy)
        paid.index_put_((contexts, tree.outcomes[real]), visits * credits, accumulate=True)
        return paid - paid.sum(-1, keepdim=True) * self.solution.policy.exp()


def _correlation(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    a, b = a - weights @ a, b - weights @ b
    return weights @ (a * b) / ((weights @ a**2) * (weights @ b**2)).sqrt()
