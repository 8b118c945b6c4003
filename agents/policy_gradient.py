"""What REINFORCE, RLOO, GRPO and PPO share: a KL penalty to the reference, and epochs of minibatches of episodes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, get_args

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule

from textgym.sb3 import EpisodicAlgorithm, TokenPolicy
from textgym.training import Episodes, TokenTerms
from textgym.training.episodes import minibatches
from textgym.training.losses import clipped_loss, kl_estimate, policy_gradient_loss
from textgym.training.updates import Normalization

KLPenalty = Literal["reward", "k2", "k3"]


class PolicyGradient(EpisodicAlgorithm):
    """The base of the family; a subclass says what a token's advantage is.

    Logged in each update, as means over real tokens: `train/approx_kl` (k3 of the old policy to the new one),
    `train/clip_fraction`, `train/policy_gradient_loss`, `train/kl_loss`, `train/entropy`; and `train/kl_coef`.

    Args:
        policy: `"TokenPolicy"`.
        env: an env id (with `n_envs` and `num_generations`), an env, a vector env or an SB3 `VecEnv`.
        model: what `textgym.language_models.load_model` accepts; by default the one of the env's tokenizer.
        batch_size: *episodes* in a minibatch (SB3 counts transitions); None takes the whole rollout.
        n_epochs: passes over the rollout.
        clip_range: of PPO's clipped loss, a float or a function of the remaining progress; None for the plain policy
            gradient, which is right for one epoch of one minibatch only.
        target_kl: updates of a rollout stop where `approx_kl` exceeds 1.5 times this.
        kl_coef: weight of the KL penalty, in reward per nat. With 0 no reference is kept unless one is given, and no
            KL to it is logged.
        kl_penalty: `"reward"` subtracts kl_coef * (log pi - log a) from each token's reward (k1, unbiased); `"k2"` and
            `"k3"` add kl_coef times this estimator to the loss (`textgym.training.losses.kl_estimate`).
        kl_target: nats per sequence; `kl_coef` is adapted to it after each rollout (Ziegler et al. 2019, section 2.2).
        missing_eos_penalty: subtracted from the reward of an episode that ended by length.
        loss_normalization: `"token"`, the mean over all tokens, or `"sequence"`, the mean of the episodes' means.
        **kwargs: see `EpisodicAlgorithm`.

    Raises:
        ValueError: an unknown choice, a batch_size or n_epochs below 1, or what `EpisodicAlgorithm` raises.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        *EpisodicAlgorithm.hyperparameters,
        "batch_size",
        "n_epochs",
        "clip_range",
        "target_kl",
        "kl_coef",
        "kl_penalty",
        "kl_target",
        "missing_eos_penalty",
        "loss_normalization",
    )

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Any = None,
        *,
        batch_size: int | None = None,
        n_epochs: int = 1,
        clip_range: float | Schedule | None = None,
        target_kl: float | None = None,
        kl_coef: float = 0.05,
        kl_penalty: KLPenalty = "reward",
        kl_target: float | None = None,
        missing_eos_penalty: float = 0.0,
        loss_normalization: Normalization = "token",
        **kwargs: Any,
    ):
        check_choice("kl_penalty", kl_penalty, KLPenalty)
        check_choice("loss_normalization", loss_normalization, Normalization)
        check_positive(batch_size=batch_size, n_epochs=n_epochs)
        if kl_target is not None and not (kl_target > 0 and kl_coef > 0):
            raise ValueError(f"kl_target={kl_target} adapts kl_coef={kl_coef}; both must be positive")
        self.batch_size, self.n_epochs, self.clip_range, self.target_kl = batch_size, n_epochs, clip_range, target_kl
        self.kl_coef, self.kl_penalty, self.kl_target = kl_coef, kl_penalty, kl_target
        self.missing_eos_penalty, self.loss_normalization = missing_eos_penalty, loss_normalization
        super().__init__(policy, env, model, **kwargs)

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
        episodes = self.with_advantages(self.rollout_buffer.episodes, self.rewards(self.rollout_buffer.episodes))
        for _ in range(self.n_epochs):
            for index in minibatches(len(episodes), self.batch_size):
                index, on_policy = index.to(self.device), self._on_policy
                batch = self.minibatch(episodes, index)
                log_probs = self.gradient_step(batch, self.loss, self.loss_normalization, self.target_kl)
                if log_probs is None:
                    return self._finish_update()
                if on_policy:
                    episodes = episodes.replace(log_probs=episodes.log_probs.index_copy(0, index, log_probs))
        return self._finish_update()

    def minibatch(self, episodes: Episodes, index: torch.Tensor) -> Episodes:
        """What a gradient step is taken on."""
        return episodes.select(index)

    def rewards(self, episodes: Episodes) -> torch.Tensor:
        """The env's rewards minus the penalties, (E, T)."""
        rewards = episodes.rewards.clone()
        if self.missing_eos_penalty:
            last = episodes.lengths - 1  # (E,)
            row = torch.arange(len(rewards), device=rewards.device)
            is_eos = torch.as_tensor(self.mdp.is_eos, device=rewards.device)[episodes.actions[row, last]]
            rewards[row, last] -= self.missing_eos_penalty * ~is_eos
        if self.kl_penalty == "reward" and self.kl_coef:
            rewards -= self.kl_coef * (episodes.log_probs - episodes.reference_log_probs)
        return rewards

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T), and what is logged."""
        log_probs = terms.log_probs
        log_ratios = log_probs - episodes.log_probs
        statistics = {"approx_kl": kl_estimate(-log_ratios, "k3")}
        clip_range = self.scheduled(self.clip_range)
        if clip_range is None:
            losses = policy_gradient_loss(log_probs, episodes.advantages)
        else:
            losses, clipped = clipped_loss(log_probs, episodes.log_probs, episodes.advantages, clip_range)
            statistics["clip_fraction"] = clipped
        statistics["policy_gradient_loss"] = losses
        if self.kl_penalty != "reward" and self.kl_coef:
            kl = kl_estimate(log_probs - episodes.reference_log_probs, self.kl_penalty)
            statistics["kl_loss"] = kl
            losses = losses + self.kl_coef * kl
        return losses, statistics

    def scheduled(self, value: float | Schedule | None) -> float | None:
        """The present value of a hyperparameter that may be a function of the remaining progress."""
        return None if value is None else FloatSchedule(value)(self._current_progress_remaining)

    def _finish_update(self) -> None:
        self.logger.record("train/kl_coef", self.kl_coef)
        if self.kl_target is not None:
            episodes = self.rollout_buffer.episodes
            kl = (episodes.log_probs - episodes.reference_log_probs).sum(-1).mean().item()
            self.kl_coef *= 1 + 0.1 * min(max(kl / self.kl_target - 1, -0.2), 0.2)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError if `value` is not one of a `Literal`'s."""
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}; accepted are {list(get_args(choices))}")


def check_positive(**values: int | None) -> None:
    """Raise ValueError if a number, by its name, is below 1; None passes."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
