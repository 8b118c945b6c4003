"""Estimates of credit beside exact advantages, on an env that can be enumerated, and agents that learn from them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch.nn import functional as F

from agents import PPO, REINFORCE, RLOO
from agents.policy_gradient import PolicyGradient
from textgym.exact import CreditComparison, CreditOracle, Objective, TokenTree
from textgym.training import Episodes
from textgym.training.returns import generalized_advantages, returns_to_go
from textgym.wrappers import counterfactual_credit
from textgym.wrappers.counterfactual_credit import Rest


class CreditProblem:
    """All episodes of a tabular policy, with their exact advantages.

    Attributes:
        oracle: knows the advantages.
        kl: KL(pi || a) of the policy to the env's reference, in nats per episode.

    Args:
        env: one with a reference table, such as `TextGenToy-v0`.
        distance: standard deviation of the difference of the policy's logits and the reference's.
        seed: of this difference.
        beta: weight of a KL penalty in the reward, per token.
    """

    def __init__(self, env: Any, distance: float, seed: int, beta: float = 0.0):
        self._env, self._tree = env, TokenTree.of(env)
        self._reference = env.unwrapped.reference_model()
        logits = self._reference.table.detach().double()
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.objective = Objective(self._tree, logits, self._tree.scores(env)["reward"], beta)
        self.oracle = CreditOracle(self.objective, logits + distance * noise)
        self.kl = float(self._tree.kl(logits + distance * noise, logits))
        policy, outcomes = self.oracle.solution.policy, self._tree.outcomes  # (X, L)
        self._mass = self._tree.log_probs(policy).exp()  # (X,)
        penalty = beta * (policy - self.objective.reference)
        self._rewards = self._tree.along(self.objective.steps - penalty, outcomes)  # (X, L)

    def compare(self, draws: list[torch.Tensor]) -> CreditComparison:
        """Several draws of the credits, (X, L) each, with the advantages."""
        return self.oracle.compare(torch.stack(draws))

    def counterfactual(self, rest: Rest, samples: int, seed: int) -> torch.Tensor:
        """(X, L) counterfactual credits of all outcomes; they know of no penalty."""
        rows = F.pad(self._tree.outcomes, (1, 0), value=self._tree.num_tokens)
        prompts = torch.zeros(len(rows), dtype=torch.int64)
        return torch.from_numpy(
            counterfactual_credit(self._env, self._reference, rows, prompts, samples=samples, rest=rest, seed=seed)
        )

    def returns(self, to_go: bool = False) -> torch.Tensor:
        """(X, L) the return, or the rewards from each token on, minus the mean return."""
        returns = returns_to_go(self._rewards, 1.0)
        return (returns if to_go else returns[:, :1].expand(returns.shape)) - self._mass @ returns[:, 0]

    def in_groups(self, size: int, leave_one_out: bool, seed: int) -> torch.Tensor:
        """(X, L) the return minus the mean of a group, whose other episodes are drawn anew for every outcome."""
        returns = self._rewards.sum(-1)  # (X,)
        generator = torch.Generator().manual_seed(seed)
        others = torch.multinomial(self._mass.expand(len(returns), -1), size - 1, True, generator=generator)
        differences = returns - returns[others].mean(-1)
        return (differences * (1.0 if leave_one_out else 1 - 1 / size))[:, None].expand(self._rewards.shape)

    def generalized(self, gae_lambda: float, critic_error: float, seed: int) -> torch.Tensor:
        """(X, L) generalised advantages of a critic that errs.

        Args:
            gae_lambda: lambda.
            critic_error: standard deviation of the error of each context, in standard deviations of the return.
            seed: of the errors.
        """
        values, returns = self.oracle.solution.values, self._rewards.sum(-1)
        spread = (self._mass @ returns**2 - (self._mass @ returns) ** 2).sqrt()
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        critic = self._tree.along(values + critic_error * spread * noise, self._tree.outcomes)
        return generalized_advantages(self._rewards, critic, 1.0, gae_lambda)


class PerfectCredit(REINFORCE):
    """REINFORCE whose advantages are exact, by an oracle that enumerates what follows."""

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages`, (E, T)."""
        env: Any = gym.make("TextGenToy-v0").unwrapped
        tree = TokenTree.of(env)
        objective = Objective(tree, env.reference_logits, tree.scores(env)["reward"], self.kl_coef)
        oracle = CreditOracle(objective, self.policy.model.table.detach())
        return episodes.replace(advantages=oracle.credit(episodes.actions).float())


LEARNERS: dict[str, tuple[type[PolicyGradient], dict[str, Any]]] = {
    "perfect credit": (PerfectCredit, {}),
    "PPO, lambda 0.95": (PPO, {"batch_size": None, "n_epochs": 1}),
    "leave-one-out": (RLOO, {}),
    "leave-one-out, reward-to-go": (RLOO, {"reward_to_go": True}),
    "no baseline": (REINFORCE, {"baseline": "none"}),
}
"""Agents that differ in their credit alone, by what gives it."""


def learning_curve(name: str, seed: int, beta: float, updates: int, n_envs: int, learning_rate: float) -> list[float]:
    """The regret of an agent of `LEARNERS` on `TextGenToy-v0` before and after each update, in parts of that at first.

    The regret is exact: the objective's best value minus that of the agent.
    """
    cls, kwargs = LEARNERS[name]
    env = gym.make_vec("TextGenToy-v0", num_envs=n_envs, num_generations=n_envs, autoreset_mode="Disabled")
    tree = TokenTree.of(env)
    objective = Objective(tree, env.unwrapped.reference_logits, tree.scores(env)["reward"], beta)  # type: ignore[attr-defined]
    agent = cls("TokenPolicy", env, kl_coef=beta, learning_rate=learning_rate, seed=seed, device="cpu", **kwargs)
    lacks: list[float] = []

    class Lack(BaseCallback):
        """Stops after so many updates."""

        def _on_rollout_start(self) -> None:
            value = objective.value(agent.policy.model.table.detach())
            lacks.append(float(objective.optimum.values[0] - value))

        def _on_step(self) -> bool:
            return len(lacks) <= updates

    agent.learn(10**9, callback=Lack())
    return [lack / lacks[0] for lack in lacks]
