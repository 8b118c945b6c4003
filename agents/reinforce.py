"""REINFORCE, RLOO and GRPO: one family (`GroupPolicyGradient`) with the defaults of three papers."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv

from agents.group_policy_gradient import GroupPolicyGradient
from textgym.arguments import Count, Named, NonNegative, Positive
from textgym.sb3 import TokenPolicy
from textgym.sb3.checkpoints import num_generations
from textgym.training import Episodes
from textgym.training.returns import Baseline, Scale, best_of_group, returns_to_go


class REINFORCE(GroupPolicyGradient):
    """Williams' REINFORCE: one gradient step per rollout, with a group baseline and a KL penalty to the reference.

    The loss is the mean over real tokens, EOS included.

    Example:
        >>> from agents import REINFORCE
        >>> agent = REINFORCE("TokenPolicy", "TextGen-v0", kl_coef=0.05)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        baseline: what is subtracted from a return: `"leave_one_out"`, the mean return of the other episodes of the
            prompt, `"mean"`, that of all of them, `"batch"`, that of the whole rollout (of its tokens where each has a
            return of its own), or `"none"`, 0.
        keep_best: in place of all this, raise the likelihood of the so many best texts of each prompt, and leave the
            others out (RAFT, which is best-of-n distillation). They are the best by their return, a KL penalty in the
            reward included.
        **kwargs: see `GroupPolicyGradient`.

    Raises:
        ValueError: `keep_best` that leaves no text of a prompt out, or goes with `scale_rewards` or `reward_to_go`; or
            what `GroupPolicyGradient` raises.
    """

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        baseline: Baseline = "leave_one_out",
        keep_best: Count | None = None,
        **kwargs: Any,
    ):
        self.baseline, self.keep_best = baseline, keep_best
        for name, default in {"scale_rewards": "none", "reward_to_go": False}.items():
            if keep_best is not None and (value := kwargs.get(name, default)) != default:
                raise ValueError(f"keep_best={keep_best} raises likelihoods, in which {name}={value!r} has no part")
        super().__init__(policy, env, model, **kwargs)

    def check_groups(self, env: VecEnv) -> None:
        """Refuse what `GroupPolicyGradient` does, and to keep the best of fewer than are kept."""
        super().check_groups(env)
        if self.keep_best is not None and num_generations(env) <= self.keep_best:
            raise ValueError(
                f"keep_best={self.keep_best} leaves none of the num_generations={num_generations(env)} texts of a "
                "prompt out, so nothing is learned from their rewards"
            )

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages`: returns minus the baseline, or 1 with `keep_best`, (E, T)."""
        if self.keep_best is None:
            return super().with_advantages(episodes, rewards)
        return episodes.replace(advantages=episodes.mask.to(rewards))

    def trained_on(self, episodes: Episodes, rewards: torch.Tensor) -> torch.Tensor:
        """Which episodes the step is taken on, (E,) bool: with `keep_best`, the best of each prompt."""
        chosen = super().trained_on(episodes, rewards)
        if self.keep_best is None:
            return chosen
        returns = returns_to_go(rewards, self.gamma, episodes.mask)[:, 0].where(chosen, -torch.inf)
        return chosen & best_of_group(returns, episodes.prompt_ids, self.keep_best)


class RLOO(GroupPolicyGradient):
    """REINFORCE with the leave-one-out baseline (Kool et al. 2019, Ahmadian et al. 2024), which brings no bias."""

    baseline = "leave_one_out"


class GRPO(GroupPolicyGradient):
    """GRPO (Shao et al. 2024): advantages normalised in the group, and PPO's clipped loss.

    A = (G - mean of the group) / (standard deviation of the group + 1e-4). The paper puts its KL penalty into the loss,
    as k3, and normalises it by `"sequence"`. The defaults here are those of the whole family, with which the gradient
    vanishes at the policy that is best under the penalty, also where it is divided by a deviation. With
    `per_component="normalize"` and `scale_rewards="batch"` it is GDPO (Liu et al. 2026).

    Args:
        clip_range: how far the ratio of new to old probability of a token may move from 1; None does not clip.
        **kwargs: see `GroupPolicyGradient`.
    """

    baseline = "mean"

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        clip_range: Positive | Schedule | None = 0.2,
        kl_coef: NonNegative | Schedule = 0.04,
        scale_rewards: Scale = "group",
        **kwargs: Any,
    ):
        super().__init__(
            policy, env, model, clip_range=clip_range, kl_coef=kl_coef, scale_rewards=scale_rewards, **kwargs
        )
