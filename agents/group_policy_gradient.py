"""What REINFORCE, RLOO and GRPO share: returns against a baseline, scaled or not, without a value head."""

from __future__ import annotations

from typing import Any, Literal

import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.policy_gradient import PolicyGradient
from textgym.arguments import Count, Named, Probability
from textgym.sb3 import TokenPolicy
from textgym.sb3.checkpoints import num_generations
from textgym.training import Episodes
from textgym.training.returns import (
    Baseline,
    Scale,
    baselines,
    differ_in_group,
    group_deviations,
    likeliness_ranks,
    normalized_sum,
    returns_to_go,
)


class GroupPolicyGradient(PolicyGradient):
    """A token's advantage is its episode's return minus a baseline, divided by a deviation.

    Logged in each rollout: `train/frac_reward_zero_std`, the share of sampled episodes in whose group all rewards are
    the same, and `train/num_gen_batches`, how often the env was sampled.

    Args:
        reward_to_go: weigh a token by the rewards from it on, instead of by the whole episode's. The baseline of the
            group is then the mean of what its episodes earn from the same step on; one that has ended counts with what
            its last token earned.
        scale_rewards: what the difference is divided by, plus 1e-4: the standard deviation of the returns of the
            prompt's `"group"`, which weighs prompts that are nearly always or nearly never solved more than the others;
            that of the whole rollout, `"batch"`; or nothing, `"none"`.
        per_component: what the reward of an episode is where it is a weighted sum of the scorer's components: `"sum"`,
            this sum; `"normalize"`, the same sum of components that were normalised in the prompt's group
            (`textgym.training.returns.normalized_sum`; GDPO), so that none outweighs the others by its scale alone.
        unlikeliness_coef: the more likely a text was among those of its prompt, the less it is paid, down to 1 minus
            this times its reward (`textgym.training.returns.likeliness_ranks`), so that rare right texts are not lost;
            for rewards that are not negative.
        max_num_gen_batches: with more than 1, groups whose rewards are all the same are left out, and the env is
            sampled up to so many times until the update has its episodes (dynamic sampling, DAPO). If there are fewer
            then, it has these, and if there are none, the last ones. `rollout/reward` is that of the episodes left.
        **kwargs: see `PolicyGradient`.

    Raises:
        ValueError: a baseline or a deviation that needs several episodes of a prompt, in an env that gives one;
            `"normalize"` where the group's deviation is to scale once more, for a scorer that pays per token, or whose
            reward is no sum of its components, or where a wrapper changes the rewards; or what `PolicyGradient` raises.
    """

    baseline: Baseline

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        reward_to_go: bool = False,
        scale_rewards: Scale = "none",
        per_component: Literal["sum", "normalize"] = "sum",
        unlikeliness_coef: Probability = 0.0,
        max_num_gen_batches: Count = 1,
        **kwargs: Any,
    ):
        if per_component == "normalize" and scale_rewards == "group":
            raise ValueError(
                "per_component='normalize' has scaled each component in its group, and scale_rewards='group' would "
                "weigh a prompt by how much they agree; choose 'batch' (GDPO) or 'none'"
            )
        if per_component == "normalize" and unlikeliness_coef:
            raise ValueError(
                f"unlikeliness_coef={unlikeliness_coef} lowers rewards that are not negative, and those of "
                "per_component='normalize' are of mean 0; set one of the two"
            )
        self.reward_to_go, self.scale_rewards, self.per_component = reward_to_go, scale_rewards, per_component
        self.unlikeliness_coef, self.max_num_gen_batches = unlikeliness_coef, max_num_gen_batches
        super().__init__(policy, env, model, **kwargs)

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
        if self.max_num_gen_batches > 1 and num_generations(env) == 1:
            raise ValueError(
                f"max_num_gen_batches={self.max_num_gen_batches} leaves groups out whose rewards are all the same, and "
                "the env has num_generations=1; make it with 2 or more"
            )
        compares = self.baseline in ("mean", "leave_one_out") or self.scale_rewards == "group"
        compares = compares or self.per_component == "normalize" or self.unlikeliness_coef > 0
        if not compares or num_generations(env) > 1:
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
            last = torch.nn.functional.one_hot(episodes.last, episodes.rewards.shape[1])  # (E, T)
            sums = normalized_sum(components, weights, episodes.prompt_ids)
            episodes = episodes.replace(rewards=sums[:, None] * last)
        if self.unlikeliness_coef:
            if (lowest := episodes.rewards.sum(-1).min()) < 0:
                raise ValueError(f"unlikeliness_coef is for rewards that are not negative, and one is {lowest:g}")
            ranks = likeliness_ranks(episodes.log_probs.sum(-1), episodes.prompt_ids)
            episodes = episodes.replace(rewards=episodes.rewards * (1 - self.unlikeliness_coef * ranks)[:, None])
        return super().rewards(episodes)

    def _fill(self, buffer: Any, env: VecEnv, rounds: int, actor: Any, on_step: Any = None) -> bool:
        """Collect episodes; for the training, until enough of them are of groups whose rewards differ."""
        if on_step is None:
            return super()._fill(buffer, env, rounds, actor)
        kept: list[Episodes] = []
        shares: list[float] = []
        while len(kept) < self.max_num_gen_batches and sum(map(len, kept)) < rounds * self.n_envs:
            if not super()._fill(buffer, env, rounds, actor, on_step):
                return False
            differ = differ_in_group(buffer.episodes.rewards.sum(-1), buffer.episodes.prompt_ids)
            shares.append(1 - differ.float().mean().item())
            kept.append(buffer.episodes if self.max_num_gen_batches == 1 else buffer.episodes.select(differ))
        self.logger.record("train/frac_reward_zero_std", sum(shares) / len(shares))
        self.logger.record("train/num_gen_batches", len(kept))
        if sum(map(len, kept)):  # a group's rows stand together, so whole groups are cut off
            buffer.episodes = Episodes.concatenate(kept).select(slice(rounds * self.n_envs))
        return True

    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages`: returns minus the baseline, divided by the deviation, (E, T)."""
        returns, ids = returns_to_go(rewards, self.gamma, episodes.mask), episodes.prompt_ids  # (E, T), (E,)
        steps = torch.arange(returns.shape[1] if self.reward_to_go else 1, device=returns.device)
        weights = returns.gather(1, steps.minimum(episodes.last[:, None]))  # (E, T) or (E, 1)
        batch = returns[episodes.mask] if self.reward_to_go else returns[:, 0]  # what "batch" is over
        baseline = batch.mean() if self.baseline == "batch" else baselines(weights, ids, self.baseline)
        advantages = (weights - baseline) * episodes.mask
        if self.scale_rewards == "batch":
            advantages = advantages / (batch.std(correction=0) + 1e-4)
        elif self.scale_rewards == "group":
            advantages = advantages / (group_deviations(returns[:, 0], ids)[:, None] + 1e-4)
        return episodes.replace(advantages=advantages)
