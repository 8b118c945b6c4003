"""What REINFORCE, RLOO, GRPO and PPO share: a KL penalty to the reference, and epochs of minibatches of episodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule

from agents.curriculum_rollouts import CurriculumRollouts
from textgym.arguments import Count, Finite, Named, NonNegative, Positive, Probability, check_argument
from textgym.curriculum import Curriculum
from textgym.sb3 import TokenPolicy
from textgym.training import Episodes, TokenTerms
from textgym.training.episodes import minibatches
from textgym.training.losses import (
    ImportanceLevel,
    clipped_loss,
    importance_ratios,
    kl_estimate,
    kl_loss,
    policy_gradient_loss,
    truncated_loss,
)
from textgym.training.updates import Normalization

KLPenalty = Literal["reward", "k2", "k3"]


class PolicyGradient(CurriculumRollouts):
    """The base of the family; a subclass says what a token's advantage is.

    Logged in each update, as means over real tokens: `train/approx_kl` (k3 of the old policy to the new one),
    `train/clip_fraction` (ratios outside the clip range, or above `importance_sampling_clip_max`),
    `train/policy_gradient_loss`, `train/kl_loss`, `train/entropy`; and `train/kl_coef` and `train/ent_coef`.

    Args:
        batch_size: *episodes* in a minibatch (stable-baselines3 counts transitions); None takes the whole rollout.
        n_epochs: passes over the episodes of a rollout.
        clip_range: how far the ratio of new to old probability of a token may move from 1 (PPO's clipped loss). None
            takes the plain policy gradient, which is right for one pass over one minibatch only.
        clip_range_high: how far above 1 the ratio may move, where that is not `clip_range` (clip-higher; DAPO takes 0.2
            and 0.28).
        delta: the ratio counts as at most this where the advantage is negative, too (two-sided clip); above 1 +
            `clip_range_high`.
        importance_sampling_clip_max: weighs the plain policy gradient by the ratio, but by no more than this (CISPO, or
            with `"product"` truncated importance sampling). No token loses its gradient, so a rollout can be used
            several times; it takes the place of `clip_range`.
        importance_sampling_level: what the ratio is of. `"token"`; `"sequence"`, the geometric mean over the tokens of
            an episode (GSPO); or `"product"`, the whole episode, the only one that corrects expectations exactly
            (`textgym.training.losses.importance_ratios`).
        target_kl: in nats per token, from the old policy to the new one; an update stops where `train/approx_kl`
            exceeds 1.5 times this. None never stops.
        kl_coef: weight of the KL penalty to the reference, in reward per nat, or a function of the remaining progress,
            which goes from 1 to 0. With 0 no reference is kept unless one is given, and no KL to it is logged.
        kl_penalty: `"reward"` subtracts kl_coef * (log pi - log a) from each token's reward (k1, unbiased); `"k2"` and
            `"k3"` (times the ratio, as in TRL) add kl_coef times this estimator to the loss
            (`textgym.training.losses.kl_loss`), which does not count how a token changes the KL of later states; `"k3"`
            is refused with top-k or top-p.
        reference_kl_target: nats per episode that the KL to the reference shall have; `kl_coef` is then only where the
            adaptation starts, which follows each rollout (Ziegler et al. 2019, section 2.2).
        target_entropy: nats per token that the policy's entropy shall stay above. After each rollout `ent_coef` grows
            by `ent_coef_delta` where it does not, and else shrinks by it, to 0 at least (Skywork-OR1, arXiv
            2505.22312).
        ent_coef_delta: in reward per nat.
        missing_eos_penalty: subtracted from the reward of an episode that ended by length.
        mask_truncated_completions: take no step on episodes that ended by length (DAPO); baselines count them all the
            same. Then the gradient is that of texts which end, a biased one.
        curriculum: which prompts the episodes of a rollout have: all equally often, `"uniform"`; more of those that are
            solved about half of the time, `"difficulty"`; or these by Thompson sampling, `"thompson"`, which also tries
            prompts that little is known of (`textgym.curriculum`). Then prompts no longer count alike in what is
            maximised.
        curriculum_decay: what a text counts for in its prompt's success rate, a rollout later.
        success_at_least: the return from which on a text counts as a success.
        loss_normalization: `"token"` takes the mean over all tokens, `"sequence"` the mean of the episodes' means,
            `"sum"` the mean of their sums, and `"constant"` this divided by the length limit (Dr. GRPO).
        **kwargs: see `EpisodicAlgorithm`.

    Raises:
        ValueError: a value that an annotation excludes, a `reference_kl_target` without a `kl_coef`, a bound of the
            ratio that contradicts another one or would have no effect, a curriculum of prompts without end, or what
            `EpisodicAlgorithm` raises.
    """

    takes_turns = True

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        batch_size: Count | None = None,
        n_epochs: Count = 1,
        clip_range: Positive | Schedule | None = None,
        clip_range_high: Positive | Schedule | None = None,
        delta: Positive | None = None,
        importance_sampling_clip_max: Positive | None = None,
        importance_sampling_level: ImportanceLevel = "token",
        target_kl: Positive | None = None,
        kl_coef: NonNegative | Schedule = 0.05,
        kl_penalty: KLPenalty = "reward",
        reference_kl_target: Positive | None = None,
        target_entropy: Positive | None = None,
        ent_coef_delta: Positive = 0.005,
        missing_eos_penalty: NonNegative = 0.0,
        mask_truncated_completions: bool = False,
        curriculum: Curriculum = "uniform",
        curriculum_decay: Probability = 0.9,
        success_at_least: Finite = 1.0,
        loss_normalization: Normalization = "token",
        **kwargs: Any,
    ):
        if reference_kl_target is not None and (not kl_coef or callable(kl_coef)):
            must = f"must be a number above 0, not {kl_coef!r}"
            raise ValueError(f"reference_kl_target={reference_kl_target} adapts kl_coef, which {must}")
        self.batch_size, self.n_epochs, self.target_kl = batch_size, n_epochs, target_kl
        self.clip_range, self.clip_range_high, self.delta = clip_range, clip_range_high, delta
        self.importance_sampling_clip_max = importance_sampling_clip_max
        self.importance_sampling_level = importance_sampling_level
        self._check_bounds()
        self.kl_coef, self.kl_penalty, self.reference_kl_target = kl_coef, kl_penalty, reference_kl_target
        self.target_entropy, self.ent_coef_delta = target_entropy, ent_coef_delta
        self.missing_eos_penalty, self.loss_normalization = missing_eos_penalty, loss_normalization
        self.mask_truncated_completions = mask_truncated_completions
        self.curriculum, self.curriculum_decay, self.success_at_least = curriculum, curriculum_decay, success_at_least
        super().__init__(policy, env, model, **kwargs)

    def _check_bounds(self) -> None:
        """Refuse bounds of the ratio that contradict each other, or that nothing would read, with a ValueError."""
        clip_max, clip_range = self.importance_sampling_clip_max, self.clip_range
        if clip_max is not None and clip_range is not None:
            raise ValueError(
                f"importance_sampling_clip_max={clip_max} takes the place of clip_range, which is {clip_range}; set "
                "clip_range=None"
            )
        unread = ["clip_range_high", "delta"] if clip_range is None else []
        for name in unread + ["importance_sampling_level"] * (clip_range is clip_max is None):
            if (value := getattr(self, name)) not in (None, "token"):
                raise ValueError(f"{name} is {value!r}, but there is no ratio that it is about; set clip_range")
        high = self.clip_range_high or clip_range
        if self.delta is not None and isinstance(high, float | int) and self.delta <= 1 + high:
            raise ValueError(f"delta is {self.delta}; it must be above 1 + clip_range_high, {1 + high:g}")

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.kl_coef and self.kl_penalty == "k3":
            self.token_model.distribution.refuse_truncation(
                "kl_penalty 'k3' is no estimate of the KL of a truncated policy; choose 'reward' or 'k2', or kl_coef=0"
            )

    @classmethod
    def adapted_arguments(cls, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """`kl_coef` and `ent_coef`, where they follow a target."""
        targets = {"kl_coef": "reference_kl_target", "ent_coef": "target_entropy"}
        return tuple(name for name, target in targets.items() if arguments.get(target))

    def needs_reference(self) -> bool:
        """Whether there is a KL penalty."""
        return self.kl_coef != 0

    @abstractmethod
    def with_advantages(self, episodes: Episodes, rewards: torch.Tensor) -> Episodes:
        """The episodes with `advantages` (and `returns`, where values are learned), (E, T), 0 at padding.

        Args:
            episodes: a rollout.
            rewards: (E, T), penalties included.
        """

    def train(self) -> None:
        """Epochs of gradient steps on the rollout's episodes."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        rewards = self.rewards(self.rollout_buffer.episodes)
        episodes = self.with_advantages(self.rollout_buffer.episodes, rewards)
        episodes = episodes.select(self.trained_on(episodes, rewards))
        for _ in range(self.n_epochs if len(episodes) else 0):
            for index in minibatches(len(episodes), self.batch_size):
                index, on_policy = index.to(self.device), self._on_policy
                batch = self.minibatch(episodes, index)
                log_probs = self.gradient_step(batch, self.loss, self.loss_normalization, self.target_kl)
                if log_probs is None:
                    return self._finish_update()
                if on_policy:
                    episodes = episodes.replace(log_probs=episodes.log_probs.index_copy(0, index, log_probs))
        return self._finish_update()

    def trained_on(self, episodes: Episodes, rewards: torch.Tensor) -> torch.Tensor:
        """Which episodes of a rollout the steps are taken on, (E,) bool.

        Args:
            episodes: a rollout, with advantages.
            rewards: (E, T), penalties included.
        """
        if self.mask_truncated_completions:
            return self.ended_by_eos(episodes)
        return torch.ones(len(episodes), dtype=torch.bool, device=episodes.rows.device)

    def ended_by_eos(self, episodes: Episodes) -> torch.Tensor:
        """Which episodes have an EOS, (E,) bool; the others ended by length."""
        ended = self.mdp.ended_by_eos(episodes.rows.cpu().numpy())
        return torch.from_numpy(ended).to(episodes.rows.device)

    def minibatch(self, episodes: Episodes, index: torch.Tensor) -> Episodes:
        """What a gradient step is taken on."""
        return episodes.select(index)

    def rewards(self, episodes: Episodes) -> torch.Tensor:
        """The env's rewards minus the penalties, (E, T)."""
        rewards = episodes.rewards.clone()
        if self.missing_eos_penalty:
            row = torch.arange(len(rewards), device=rewards.device)
            rewards[row, episodes.last] -= self.missing_eos_penalty * ~self.ended_by_eos(episodes)
        if self.kl_penalty == "reward" and (kl_coef := self.scheduled("kl_coef")):
            rewards -= kl_coef * (episodes.log_probs - episodes.reference_log_probs)
        return rewards

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T), and what is logged."""
        log_probs, old, advantages = terms.log_probs, episodes.log_probs, episodes.advantages
        statistics = {"approx_kl": kl_estimate(old - log_probs, "k3")}
        clip_range, clip_max = self.scheduled("clip_range"), self.importance_sampling_clip_max
        ratios = importance_ratios(log_probs, old, episodes.mask, self.importance_sampling_level)
        if clip_range is not None:
            high = self.scheduled("clip_range_high")
            losses, statistics["clip_fraction"] = clipped_loss(ratios, advantages, clip_range, high, self.delta)
        elif clip_max is not None:
            losses, statistics["clip_fraction"] = truncated_loss(log_probs, ratios, advantages, clip_max)
        else:
            losses = policy_gradient_loss(log_probs, advantages)
        statistics["policy_gradient_loss"] = losses
        if self.kl_penalty != "reward" and (kl_coef := self.scheduled("kl_coef")):
            statistics["kl_loss"] = kl_loss(log_probs, old, episodes.reference_log_probs, self.kl_penalty)
            losses = losses + kl_coef * statistics["kl_loss"]
        return losses, statistics

    def scheduled(self, name: str) -> float | None:
        """The present value of an argument that may be a function of the remaining progress.

        Raises:
            ValueError: the function's value is negative or not finite.
        """
        if (value := getattr(self, name)) is None:
            return None
        now = FloatSchedule(value)(self._current_progress_remaining)
        check_argument(name, now, NonNegative)
        return now

    def _finish_update(self) -> None:
        episodes = self.rollout_buffer.episodes
        self.logger.record("train/kl_coef", self.scheduled("kl_coef"))
        self.logger.record("train/ent_coef", self.ent_coef)
        if self.reference_kl_target is not None and not callable(self.kl_coef):
            kl = (episodes.log_probs - episodes.reference_log_probs).sum(-1).mean().item()
            self.kl_coef *= 1 + 0.1 * min(max(kl / self.reference_kl_target - 1, -0.2), 0.2)
        if self.target_entropy is not None:
            entropy = -episodes.log_probs[episodes.mask].mean().item()  # unbiased
            step = self.ent_coef_delta if entropy <= self.target_entropy else -self.ent_coef_delta
            self.ent_coef = max(0.0, self.ent_coef + step)
