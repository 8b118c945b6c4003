"""Counterfactual credits beside exact advantages, on an env that can be enumerated."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from textgym.exact import TokenTree, evaluate_policy
from textgym.wrappers import counterfactual_credit
from textgym.wrappers.counterfactual_credit import Rest


class Comparison(NamedTuple):
    """How near credits are to the policy's advantages A = Q - V.

    Attributes:
        correlation: over the tokens of sampled episodes.
        error: the root of the mean squared difference over the same tokens, in units of reward.
        cosine: of the policy gradient that the credits give in expectation, with the exact one.
        bias: the length of the difference of these two gradients, in lengths of the exact one.
    """

    correlation: float
    error: float
    cosine: float
    bias: float


class CreditProblem:
    """All episodes of a tabular policy, with their exact advantages.

    Attributes:
        kl: KL(pi || a) of the policy to the env's reference, in nats per episode.

    Args:
        env: one with a reference table, such as `TextGenToy-v0`.
        distance: standard deviation of the difference of the policy's logits and the reference's.
        seed: of this difference.
    """

    def __init__(self, env: Any, distance: float, seed: int):
        self._env, self._tree = env, TokenTree.of(env)
        self._reference = env.unwrapped.reference_model()
        logits = self._reference.table.detach().double()
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        policy = logits + distance * noise
        self._rewards = self._tree.scores(env)["reward"]  # (X,)
        self._solution = evaluate_policy(self._tree, policy, self._rewards)
        self._mass = self._tree.log_probs(policy).exp()  # (X,)
        self.kl = float(self._tree.kl(policy, logits))
        outcomes = self._tree.outcomes  # (X, L)
        self._real = outcomes != self._tree.pad_id
        so_far = torch.full_like(outcomes, self._tree.pad_id)
        self._contexts = torch.zeros_like(outcomes)  # (X, L) the number of the context before each token
        for step, actions in enumerate(outcomes.T):
            self._contexts[:, step] = self._tree.index(so_far)
            so_far[:, step] = torch.where(actions < self._tree.num_tokens, actions, self._tree.pad_id)
        self._weights = (self._mass[:, None] * self._real)[self._real]  # (M,) of each token of each outcome

    def credits(self, rest: Rest, samples: int, seed: int) -> torch.Tensor:
        """(X, L) float64 credits of all outcomes."""
        rows = F.pad(self._tree.outcomes, (1, 0), value=self._tree.num_tokens)
        prompts = torch.zeros(len(rows), dtype=torch.int64)
        return torch.from_numpy(
            counterfactual_credit(self._env, self._reference, rows, prompts, samples=samples, rest=rest, seed=seed)
        )

    def centred_returns(self) -> torch.Tensor:
        """(X, L) the return minus the mean return, for every token of an outcome."""
        return (self._rewards - self._mass @ self._rewards)[:, None].expand(self._real.shape)

    def compare(self, draws: list[torch.Tensor]) -> Comparison:
        """Several draws of the credits with the advantages."""
        advantages = self._solution.q_values - self._solution.values[:, None]  # (S, K + 1)
        exact = advantages[self._contexts[self._real], self._tree.outcomes[self._real]]  # (M,)
        drawn = torch.stack([draw[self._real] for draw in draws])  # (draws, M)
        weights = self._weights / self._weights.sum()
        correlations = torch.stack([_correlation(one, exact, weights) for one in drawn])
        error = ((drawn - exact) ** 2 @ weights).mean().sqrt()
        wanted, found = self._gradient(exact), self._gradient(drawn.mean(0))
        cosine = (wanted * found).sum() / wanted.norm() / found.norm()
        values = correlations.mean(), error, cosine, (found - wanted).norm() / wanted.norm()
        return Comparison(*(float(value) for value in values))

    def _gradient(self, credits: torch.Tensor) -> torch.Tensor:
        """E[sum_t credit_t grad log pi(x_t | s_t)] by the table of logits: (M,) -> (S, K + 1)."""
        contexts, actions = self._contexts[self._real], self._tree.outcomes[self._real]
        paid = torch.zeros_like(self._solution.policy)
        paid.index_put_((contexts, actions), self._weights * credits, accumulate=True)
        return paid - paid.sum(-1, keepdim=True) * self._solution.policy.exp()


def _correlation(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    a, b = a - weights @ a, b - weights @ b
    return weights @ (a * b) / ((weights @ a**2) * (weights @ b**2)).sqrt()
