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

    def in_groups(self, size: int, leave_one_out: bool, seed: int, to_go: bool = False) -> torch.Tensor:
        """(X, L) the return minus the mean of a group, whose other episodes are drawn anew for every outcome.

        With `to_go`, the rewards from each token on; an episode that has ended keeps those of its last token.
        """
        returns, generator = returns_to_go(self._rewards, 1.0), torch.Generator().manual_seed(seed)
        steps = torch.arange(returns.shape[1] if to_go else 1)
        returns = returns.gather(1, steps.minimum(self._tree.lengths[:, None] - 1))  # (X, L) or (X, 1)
        others = torch.multinomial(self._mass.expand(len(returns), -1), size - 1, True, generator=generator)
        differences = returns - returns[others].mean(1)
        return (differences * (1.0 if leave_one_out else 1 - 1 / size)).expand(self._rewards.shape)

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

    def process_rewards(self, episodes: int, seed: int) -> torch.Tensor:
        """(X, L) what each token adds to the return that a learned head predicts of the text so far.

        A token of the end is paid the return instead of a prediction. The head is linear in the text's length, its
        number of each token and its last token; it is fitted to sampled episodes, of which each prefix has the rewards
        that are still to come as its label (as Math-Shepherd, Wang et al. 2024, arXiv 2312.08935; its differences as
        rewards: Setlur et al. 2024, arXiv 2410.08146).

        Args:
            episodes: how many it has seen.
            seed: of these.
        """
        tree, generator = self._tree, torch.Generator().manual_seed(seed)
        tokens = F.one_hot(tree.contexts, tree.num_tokens + 2)[..., : tree.num_tokens].double()  # (S, L, K)
        lengths = (tree.contexts != tree.pad_id).sum(-1)  # (S,)
        last = tokens[torch.arange(len(tokens)), (lengths - 1).clamp(min=0)]
        features = torch.cat([F.one_hot(lengths).double(), tokens.sum(1), last], -1)  # (S, L + 2 K)
        seen = tree.outcomes[torch.multinomial(self._mass, episodes, True, generator=generator)]  # (N, L)
        real = seen != tree.pad_id
        x = features[tree.along(torch.arange(tree.num_contexts), seen)[real].long()]  # (M, L + 2 K)
        y = returns_to_go(self._rewards, 1.0)[tree.index(seen)][real]
        head = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)  # ridge
        return generalized_advantages(self._rewards, tree.along(features @ head, tree.outcomes), 1.0, 0.0)


class PerfectCredit(REINFORCE):
    """REINFORCE whose advantages are exact, by an oracle that enumerates what follows."""

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages`, (E, T)."""
        env: Any = gym.make("TextGenToy-v0").unwrapped
        tree = TokenTree.of(env)
        objective = Objective(tree, env.reference_logits, tree.scores(env)["reward"], self.scheduled("kl_coef") or 0.0)
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
