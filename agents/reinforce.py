"""REINFORCE, RLOO and GRPO: one family (`GroupPolicyGradient`) with the defaults of three papers."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.type_aliases import Schedule

from agents.group_policy_gradient import GroupPolicyGradient
from textgym.arguments import Named, NonNegative, Positive
from textgym.sb3 import TokenPolicy
from textgym.training.returns import Baseline, Scale


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
        **kwargs: see `GroupPolicyGradient`.
    """

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        baseline: Baseline = "leave_one_out",
        **kwargs: Any,
    ):
        self.baseline = baseline
        super().__init__(policy, env, model, **kwargs)


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
        kl_coef: NonNegative = 0.04,
        scale_rewards: Scale = "group",
        **kwargs: Any,
    ):
        super().__init__(
            policy, env, model, clip_range=clip_range, kl_coef=kl_coef, scale_rewards=scale_rewards, **kwargs
        )
