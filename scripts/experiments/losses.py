"""Losses of this package's agents, and well-known faults, as functions of enumerated batches (`textgym.exact.Batch`).

Nothing is copied: an agent is made, and its own methods turn a batch into advantages and losses.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from agents.policy_gradient import PolicyGradient
from textgym.exact import Batch, Objective
from textgym.exact.gradients import Loss
from textgym.language_models.log_probs import TokenTerms
from textgym.training import Episodes
from textgym.training.losses import KLEstimator, kl_estimate
from textgym.training.returns import group_deviations, returns_to_go
from textgym.training.updates import Normalization, token_weights


def agent_loss(
    cls: type[PolicyGradient], objective: Objective, group_size: int, perfect_critic: bool = False, **kwargs: Any
) -> Loss:
    """The loss of an agent of this package.

    Args:
        cls: the agent.
        objective: whose tree and penalty it gets.
        group_size: episodes of a prompt.
        perfect_critic: whether its values are the exact ones, or 0.
        **kwargs: its arguments.
    """
    tree = objective.tree
    env = gym.make_vec(
        "TextGenToy-v0",
        num_envs=group_size,
        autoreset_mode="Disabled",
        num_generations=group_size,
        num_tokens=tree.num_tokens,
        max_new_tokens=tree.max_new_tokens,
    )
    arguments: dict[str, Any] = {"kl_coef": objective.beta, "gamma": objective.gamma, "device": "cpu"} | kwargs
    agent = cls("TokenPolicy", env, **arguments)

    def loss(batch: Batch) -> torch.Tensor:
        zeros = torch.zeros_like(batch.rewards)
        episodes = Episodes.sampled(
            tree.pad_id,
            rows=torch.nn.functional.pad(batch.actions, (1, 0), value=tree.num_tokens),
            prompt_ids=batch.groups,
            components=batch.rewards.sum(-1, keepdim=True),
            rewards=batch.rewards,
            sampled_log_probs=batch.old_log_probs,
            values=batch.values if perfect_critic else zeros,
        ).replace(reference_log_probs=batch.reference_log_probs)
        rewards = agent.rewards(episodes)
        episodes = agent.with_advantages(episodes, rewards)
        kept = agent.trained_on(episodes, rewards).nonzero().flatten()
        if not len(kept):  # no step is taken
            return batch.log_probs.sum() * 0.0
        episodes, batch = agent.minibatch(episodes, kept), Batch(*(field[kept] for field in batch))
        losses, _ = agent.loss(episodes, TokenTerms(batch.log_probs, zeros[kept], episodes.values, zeros[kept]))
        return reduced(losses, batch, agent.loss_normalization)

    return loss


def reduced(losses: torch.Tensor, batch: Batch, normalization: Normalization = "sum") -> torch.Tensor:
    """One number of the losses of tokens, (B, T), as `textgym.training.updates` makes it."""
    return (losses * token_weights(batch.mask, normalization))[batch.mask].sum()


def with_kl(loss: Loss, beta: float, estimator: KLEstimator, normalization: Normalization = "sum") -> Loss:
    """A loss plus beta times an estimate of the KL, differentiated as it stands."""

    def penalised(batch: Batch) -> torch.Tensor:
        kl = kl_estimate(batch.log_probs - batch.reference_log_probs, estimator)
        return loss(batch) + beta * reduced(kl, batch, normalization)

    return penalised


def where_rewards_differ(loss: Loss) -> Loss:
    """A loss whose groups are left out, penalty and all, where every episode earned the same.

    Its scale is that of all groups.
    """

    def filtered(batch: Batch) -> torch.Tensor:
        kept = group_deviations(batch.rewards.sum(-1), batch.groups) > 0
        batch_of_kept = Batch(*(field[kept] for field in batch))
        return loss(batch_of_kept) * kept.double().mean() if kept.any() else batch.log_probs.sum() * 0.0

    return filtered


def without_eos(loss: Loss, eos_token_id: int) -> Loss:
    """A loss that takes EOS for padding, which a pad id that is the EOS id brings about."""
    return lambda batch: loss(
        batch._replace(log_probs=torch.where(batch.actions == eos_token_id, batch.old_log_probs, batch.log_probs))
    )


def step_baseline(beta: float) -> Loss:
    """Reward-to-go minus its mean over the episodes of the group that still run at the same step."""

    def loss(batch: Batch) -> torch.Tensor:
        returns = returns_to_go(batch.rewards - beta * (batch.old_log_probs - batch.reference_log_probs), 1.0)
        same = (batch.groups[:, None] == batch.groups).double()  # (B, B)
        running = batch.mask.double()
        means = same @ (returns * running) / (same @ running).clamp(min=1.0)
        return reduced(-(returns - means) * batch.log_probs, batch)

    return loss


def top_p(log_pi: torch.Tensor, p: float = 0.8) -> torch.Tensor:
    """What nucleus sampling makes of a policy, (S, K + 1): the likeliest tokens until their mass is p, renormalised."""
    ordered, order = log_pi.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.full_like(log_pi, -torch.inf).scatter(-1, order, torch.where(before < p, ordered, -torch.inf))
    return kept.log_softmax(-1)
