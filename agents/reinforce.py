"""REINFORCE for language models: one policy-gradient step per rollout of complete episodes."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import torch

from agents.losses import policy_gradient_loss
from agents.returns import Baseline, baselines, returns_to_go
from textgym.sb3 import Episodes, EpisodicAlgorithm, TokenPolicy


class REINFORCE(EpisodicAlgorithm):
    """Williams' REINFORCE with a group baseline and a KL penalty to the frozen reference model.

    The reward of token t is r_t - kl_coef * (log pi(a_t | s_t) - log a(a_t | s_t)): the k1 estimator of KL(pi || a) in
    nats, as a penalty *in the reward*, where it is unbiased (k3 is only logged). A token's weight is its episode's
    return minus the baseline of its prompt's group; the loss is the mean over real tokens, EOS included.

    Example:
        >>> from agents import REINFORCE
        >>> agent = REINFORCE("TokenPolicy", "TextGen-v0", kl_coef=0.05)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        policy: `"TokenPolicy"`.
        env: an env id (with `n_envs` and `num_generations`), an env, a vector env or an SB3 `VecEnv`.
        model: what `textgym.language_models.load_model` accepts; `"tiny"` by default.
        kl_coef: weight of the KL penalty, in reward per nat.
        baseline: `"leave_one_out"`, `"mean"` or `"none"`, within the prompt's group.
        reward_to_go: weigh a token by the rewards from it on, instead of the whole episode's.
        **kwargs: see `EpisodicAlgorithm`.

    Raises:
        ValueError: an unknown baseline, or what `EpisodicAlgorithm` raises.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        *EpisodicAlgorithm.hyperparameters,
        "kl_coef",
        "baseline",
        "reward_to_go",
    )

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Any = None,
        *,
        kl_coef: float = 0.05,
        baseline: Baseline = "leave_one_out",
        reward_to_go: bool = False,
        **kwargs: Any,
    ):
        if baseline not in get_args(Baseline):
            raise ValueError(f"baseline is {baseline!r}; accepted are {list(get_args(Baseline))}")
        self.kl_coef, self.baseline, self.reward_to_go = kl_coef, baseline, reward_to_go
        super().__init__(policy, env, model, **kwargs)

    def train(self) -> None:
        """One gradient step on the rollout's episodes."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        episodes = self.rollout_buffer.episodes
        self.gradient_step(
            episodes.replace(advantages=self.advantages(episodes)),
            lambda piece, values, log_probs, entropies: policy_gradient_loss(log_probs, piece.advantages),
        )

    def advantages(self, episodes: Episodes) -> torch.Tensor:
        """Each token's weight, (E, T), 0 at padding."""
        rewards = episodes.rewards - self.kl_coef * (episodes.log_probs - episodes.reference_log_probs)
        returns = returns_to_go(rewards, self.gamma)  # (E, T)
        weights = returns if self.reward_to_go else returns[:, :1].expand_as(returns)
        baseline = baselines(returns[:, 0], episodes.prompt_ids, self.baseline)
        return (weights - baseline[:, None]) * episodes.mask
