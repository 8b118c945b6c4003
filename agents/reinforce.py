"""REINFORCE, RLOO and GRPO: whole-episode returns against a baseline from the prompt's group, without a value head."""

from __future__ import annotations

from typing import Any, Literal

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv

from agents.policy_gradient import KLPenalty, PolicyGradient
from textgym.arguments import Named, NonNegative, Positive
from textgym.sb3 import TokenPolicy
from textgym.sb3.checkpoints import num_generations
from textgym.training import Episodes
from textgym.training.returns import Baseline, baselines, group_deviations, normalized_sum, returns_to_go


class GroupPolicyGradient(PolicyGradient):
    """What the three share: a token's advantage is its episode's return minus a baseline of its prompt's group.

    Args:
        reward_to_go: weigh a token by the rewards from it on, instead of by the whole episode's.
        per_component: what the reward of an episode is where it is a weighted sum of the scorer's components: `"sum"`,
            this sum; `"normalize"`, the same sum of components that were normalised in the prompt's group
            (`textgym.training.returns.normalized_sum`; GDPO), so that none outweighs the others by its scale alone.
        **kwargs: see `PolicyGradient`.

    Raises:
        ValueError: a baseline or a normalisation that needs several episodes of a prompt, in an env that gives one;
            `"normalize"` for a scorer that pays per token, or whose reward is no sum of its components, or where a
            wrapper changes the rewards; or what `PolicyGradient` raises.
    """

    baseline: Baseline

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        reward_to_go: bool = False,
        per_component: Literal["sum", "normalize"] = "sum",
        **kwargs: Any,
    ):
        self.reward_to_go, self.per_component = reward_to_go, per_component
        super().__init__(policy, env, model, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None:
            self.check_groups(self.env)

    def check_env(self, env: VecEnv) -> None:
        """Check what `EpisodicAlgorithm` checks, and that prompts have several episodes where the baseline compares."""
        super().check_env(env)
        self.check_groups(env)

    def check_groups(self, env: VecEnv) -> None:
        """Refuse an env whose prompts come once, with a ValueError; few prompts are drawn several times by chance.

        Components that are to be normalised must be known, too.
        """
        if self.per_component == "normalize":
            scorer = env.get_attr("scorer")[0]
            if scorer.per_token or not set(scorer.objectives) <= set(scorer.component_names):
                problem = "pays per token" if scorer.per_token else "is no sum of its components"
                raise ValueError(
                    f"per_component is 'normalize', but the reward of the scorer {scorer.name!r} {problem}"
                )
        if (self.baseline == "none" and self.per_component == "sum") or num_generations(env) > 1:
            return
        prompts = env.get_attr("task")[0].prompts.num_prompts
        if prompts is None or 2 * prompts > self.episodes_per_update:
            raise ValueError(
                f"{type(self).__name__} compares the episodes of a prompt, and the env has num_generations=1; make it "
                "with 2 or more, or use PPO, or REINFORCE with baseline='none'"
            )

    def rewards(self, episodes: Episodes) -> torch.Tensor:
        """The env's rewards, or the normalised ones at the last tokens, minus the penalties, (E, T)."""
        if self.per_component == "normalize":
            objectives = self.task.scorer.objectives
            weights = torch.tensor(list(objectives.values())).to(episodes.components)
            components = episodes.components[:, [self.component_names.index(name) for name in objectives]]  # (E, K)
            if not torch.allclose(episodes.rewards.sum(-1), components.nan_to_num(nan=0.0) @ weights, 1e-4, 1e-4):
                raise ValueError(
                    "per_component is 'normalize', but a wrapper changes the rewards that the scorer gives"
                )
            last = torch.nn.functional.one_hot(episodes.lengths - 1, episodes.rewards.shape[1])  # (E, T)
            sums = normalized_sum(components, weights, episodes.prompt_ids)
            episodes = episodes.replace(rewards=sums[:, None] * last)
        return super().rewards(episodes)

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages`: returns minus the group's baseline, (E, T)."""
        returns = returns_to_go(rewards, self.gamma)  # (E, T)
        weights = returns if self.reward_to_go else returns[:, :1].expand_as(returns)
        baseline = baselines(returns[:, 0], episodes.prompt_ids, self.baseline)
        return episodes.replace(advantages=(weights - baseline[:, None]) * episodes.mask)


class REINFORCE(GroupPolicyGradient):
    """Williams' REINFORCE: one gradient step per rollout, with a group baseline and a KL penalty to the reference.

    The loss is the mean over real tokens, EOS included.

    Example:
        >>> from agents import REINFORCE
        >>> agent = REINFORCE("TokenPolicy", "TextGen-v0", kl_coef=0.05)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        baseline: what is subtracted from a return: `"leave_one_out"`, the mean return of the other episodes of the
            prompt, `"mean"`, that of all of them, or `"none"`, 0.
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

    A = (G - mean of the group) / (standard deviation of the group + 1e-4). Dividing by the deviation weighs prompts
    that are nearly always or nearly never solved more than the others; `scale_advantages=False` leaves it out (Liu et
    al. 2025). The paper's loss is normalised by `"sequence"`; the default here is `"token"`, as for the whole family.
    With `per_component="normalize"` it is GDPO (Liu et al. 2026): the deviation is then that of the whole rollout.

    Args:
        clip_range: how far the ratio of new to old probability of a token may move from 1; None does not clip.
        scale_advantages: divide by the standard deviation, of the group or of the rollout.
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
        kl_penalty: KLPenalty = "k3",
        scale_advantages: bool = True,
        **kwargs: Any,
    ):
        self.scale_advantages = scale_advantages
        super().__init__(policy, env, model, clip_range=clip_range, kl_coef=kl_coef, kl_penalty=kl_penalty, **kwargs)

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages`: returns, normalised in the group, (E, T)."""
        episodes = super().with_advantages(episodes, rewards)
        if not self.scale_advantages:
            return episodes
        returns = returns_to_go(rewards, self.gamma)[:, 0]  # (E,)
        if self.per_component == "normalize":
            deviations = (
                (returns - baselines(returns, episodes.prompt_ids, "mean")).std(correction=0).expand_as(returns)
            )
        else:
            deviations = group_deviations(returns, episodes.prompt_ids)
        return episodes.replace(advantages=episodes.advantages / (deviations[:, None] + 1e-4))
