"""Proximal policy optimisation (Schulman et al. 2017) for language models, on stable-baselines3's."""

from __future__ import annotations

from typing import Any, ClassVar

import stable_baselines3
import torch
from stable_baselines3.common.type_aliases import Schedule

from agents.policy_gradient import PolicyGradient
from textgym.arguments import Count, Named, NonNegative, Positive, Probability
from textgym.sb3 import TokenPolicy
from textgym.training import Episodes, TokenTerms
from textgym.training.losses import value_loss
from textgym.training.returns import generalized_advantages, whiten


class PPO(PolicyGradient, stable_baselines3.PPO):  # type: ignore[misc]  # batch_size and clip_range may be None
    """PPO on complete episodes, with a KL penalty to the reference model.

    It is a `stable_baselines3.PPO` whose rollouts are whole episodes, each stored and run through the model once.
    Advantages are generalised (GAE) and whitened over real tokens.

    Example:
        >>> from agents import PPO
        >>> agent = PPO("TokenPolicy", "TextGen-v0", kl_coef=0.05)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        gae_lambda: lambda of the generalised advantages: 1 is the return minus the value, 0 the one-step error.
        clip_range: how far the ratio of new to old probability of a token may move from 1.
        clip_range_vf: how far a value may move in an update, in units of the return; None does not clip.
        normalize_advantage: whiten the advantages of a minibatch over its real tokens.
        vf_coef: weight of the value loss.
        **kwargs: see `PolicyGradient`.

    Raises:
        ValueError: what `PolicyGradient` raises.
    """

    withheld: ClassVar[frozenset[str]] = frozenset({"importance_sampling_clip_max"})
    """PPO is the clipped loss, so nothing takes its place."""

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        batch_size: Count | None = 32,
        n_epochs: Count = 4,
        gae_lambda: Probability = 0.95,
        clip_range: Positive | Schedule = 0.2,
        clip_range_vf: Positive | Schedule | None = None,
        normalize_advantage: bool = True,
        vf_coef: NonNegative = 0.5,
        **kwargs: Any,
    ):
        self.clip_range_vf, self.normalize_advantage = clip_range_vf, normalize_advantage
        super().__init__(policy, env, model, batch_size=batch_size, n_epochs=n_epochs, clip_range=clip_range, **kwargs)
        self.gae_lambda, self.vf_coef = gae_lambda, vf_coef

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """Generalised advantages, and returns for the value head."""
        mask = episodes.mask
        advantages = generalized_advantages(rewards, episodes.values, self.gamma, self.gae_lambda, mask) * mask
        return episodes.replace(advantages=advantages, returns=advantages + episodes.values)

    def minibatch(self, episodes: Episodes, index: torch.Tensor) -> Episodes:
        """Some episodes, with their advantages whitened."""
        batch = super().minibatch(episodes, index)
        return batch.replace(advantages=whiten(batch.advantages, batch.mask)) if self.normalize_advantage else batch

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The policy's loss plus the value head's."""
        losses, statistics = super().loss(episodes, terms)
        clip_range_vf = self.scheduled("clip_range_vf")
        statistics["value_loss"] = value_loss(terms.values, episodes.values, episodes.returns, clip_range_vf)
        return losses + self.vf_coef * statistics["value_loss"], statistics
