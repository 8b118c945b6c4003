"""REINFORCE, RLOO and GRPO: whole-episode returns against a baseline from the prompt's group, without a value head."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import Schedule

from agents.policy_gradient import KLPenalty, PolicyGradient, check_choice
from textgym.sb3 import TokenPolicy
from textgym.training import Episodes
from textgym.training.returns import Baseline, baselines, group_deviations, returns_to_go


class REINFORCE(PolicyGradient):
    """Williams' REINFORCE: one gradient step per rollout, with a group baseline and a KL penalty to the reference.

    A token's advantage is its episode's return minus the baseline of its prompt's group; the loss is the mean over real
    tokens, EOS included.

    Example:
        >>> from agents import REINFORCE
        >>> agent = REINFORCE("TokenPolicy", "TextGen-v0", kl_coef=0.05)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        policy: `"TokenPolicy"`.
        env: an env id (with `n_envs` and `num_generations`), an env, a vector env or an SB3 `VecEnv`.
        model: what `textgym.language_models.load_model` accepts; by default the one of the env's tokenizer.
        baseline: `"leave_one_out"`, `"mean"` or `"none"`, within the prompt's group.
        reward_to_go: weigh a token by the rewards from it on, instead of the whole episode's.
        **kwargs: see `PolicyGradient`.

    Raises:
        ValueError: an unknown baseline, or what `PolicyGradient` raises.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (*PolicyGradient.hyperparameters, "baseline", "reward_to_go")

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Any = None,
        *,
        baseline: Baseline = "leave_one_out",
        reward_to_go: bool = False,
        **kwargs: Any,
    ):
        check_choice("baseline", baseline, Baseline)
        self.baseline, self.reward_to_go = baseline, reward_to_go
        super().__init__(policy, env, model, **kwargs)

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """Advantages as the class says."""
        returns = returns_to_go(rewards, self.gamma)  # (E, T)
        weights = returns if self.reward_to_go else returns[:, :1].expand_as(returns)
        baseline = baselines(returns[:, 0], episodes.prompt_ids, self.baseline)
        return episodes.replace(advantages=(weights - baseline[:, None]) * episodes.mask)


class RLOO(REINFORCE):
    """REINFORCE with the leave-one-out baseline (Kool et al. 2019, Ahmadian et al. 2024), which brings no bias.

    Args:
        policy: as for REINFORCE.
        env: as for REINFORCE.
        model: as for REINFORCE.
        **kwargs: see `REINFORCE`; `baseline` is fixed.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = tuple(n for n in REINFORCE.hyperparameters if n != "baseline")

    def __init__(self, policy: str | type[TokenPolicy], env: Any, model: Any = None, **kwargs: Any):
        super().__init__(policy, env, model, baseline="leave_one_out", **kwargs)


class GRPO(REINFORCE):
    """GRPO (Shao et al. 2024): advantages normalised in the group, and PPO's clipped loss.

    A = (G - mean of the group) / (standard deviation of the group + 1e-4). Dividing by the deviation weighs prompts
    that are nearly always or nearly never solved more than the others; `scale_advantages=False` leaves it out (Liu et
    al. 2025). The paper's loss is normalised by `"sequence"`; the default here is `"token"`, as for the whole family.

    Args:
        policy: as for REINFORCE.
        env: as for REINFORCE.
        model: as for REINFORCE.
        n_epochs: passes over the rollout.
        clip_range: of the clipped loss.
        kl_coef: weight of the KL penalty.
        kl_penalty: the paper's `"k3"`, in the loss.
        scale_advantages: divide by the group's standard deviation.
        **kwargs: see `PolicyGradient`.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (*RLOO.hyperparameters, "scale_advantages")

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Any = None,
        *,
        n_epochs: int = 1,
        clip_range: float | Schedule | None = 0.2,
        kl_coef: float = 0.04,
        kl_penalty: KLPenalty = "k3",
        scale_advantages: bool = True,
        **kwargs: Any,
    ):
        self.scale_advantages = scale_advantages
        super().__init__(
            policy,
            env,
            model,
            baseline="mean",
            n_epochs=n_epochs,
            clip_range=clip_range,
            kl_coef=kl_coef,
            kl_penalty=kl_penalty,
            **kwargs,
        )

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """Advantages as the class says."""
        episodes = super().with_advantages(episodes, rewards)
        if not self.scale_advantages:
            return episodes
        deviations = group_deviations(returns_to_go(rewards, self.gamma)[:, 0], episodes.prompt_ids)
        return episodes.replace(advantages=episodes.advantages / (deviations[:, None] + 1e-4))
