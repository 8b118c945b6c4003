"""The base of every on-policy language-model agent: an SB3 algorithm that collects whole episodes.

A subclass is a constructor and `train()`, which reads `self.rollout_buffer.episodes`. What is left out on purpose:
`n_steps` (rollouts cut at a step count drop the long episodes), bootstrapping at the end (the length limit is part of
the MDP), and pickled checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv

from textgym.arguments import (
    AsJSON,
    CheckedArguments,
    Count,
    Named,
    NonNegative,
    PositiveOrInfinite,
    Probability,
    Seed,
    arguments_of,
    check_argument,
)
from textgym.language_models.devices import Device
from textgym.language_models.precision import Precision
from textgym.mdp import TextMDP
from textgym.sb3.buffer import EpisodeRolloutBuffer
from textgym.sb3.env_checks import check_whole_episodes
from textgym.sb3.env_model import check_vocabulary, names_a_tokenizer
from textgym.sb3.policy import TokenPolicy
from textgym.sb3.rollouts import EpisodeCollection
from textgym.sb3.vec_env import TextVecEnv
from textgym.training.episodes import Episodes
from textgym.training.reference import Reference
from textgym.training.updates import Loss, Normalization, accumulate_gradients, apply_gradients

WITHOUT_A_SAY: dict[str, Any] = {
    "n_steps": 0,
    "gae_lambda": 1.0,
    "vf_coef": 0.0,
    "use_sde": False,
    "sde_sample_freq": -1,
    "rollout_buffer_class": EpisodeRolloutBuffer,
    "supported_action_spaces": (spaces.Discrete,),
    "_init_setup_model": False,
}
"""Arguments that SB3's base class must be given; the agents here have no use for them, or set them themselves."""


class EpisodicAlgorithm(CheckedArguments, EpisodeCollection):
    """Collects complete episodes, the same number from every env, and evaluates them under a frozen reference model.

    `num_timesteps` counts real tokens. Logged in each rollout: `rollout/reward` (mean return of the env),
    `rollout/kl_to_reference` (k1: the mean over episodes of sum_t log pi - log a, an unbiased estimate of KL(pi || a)
    in nats per sequence), `rollout/kl_to_reference_k3` (sum_t exp(-k1_t) - 1 + k1_t, never negative; not where top-k or
    top-p truncates the policy, where this is no estimate), every scorer component (the mean over the texts to which it
    applies), `scorer/NAME/std` and `scorer/NAME/applies` of it (standard deviation over these texts, and their share),
    what reward functions report with `log_metric` as `scorer/METRIC`,
    `time/scoring` (seconds that the scorer took) and `time/scoring_share` (share of the rollout's time that was spent
    waiting for it), and `train/log_prob_mismatch` (mean |sampling -
    training| log-probability before the first update).

    Args:
        policy: `"TokenPolicy"`.
        env: an env id, a TextGym env or vector env, or an SB3 `VecEnv` of them; None to load for prediction only.
        model: what is trained: `"tiny"`, `"smollm2-q4"`, a directory, a hub id or a loaded model; None takes the one
            that the env's tokenizer belongs to.
        reference: what the KL is measured to, in the same forms. None takes the untrained `model`: a copy, or with
            `peft` the model without its adapters; an agent whose objective needs no reference keeps none. It is never
            trained.
        peft: a `peft.PeftConfig`, or its arguments with the `peft_type`, such as `{"peft_type": "IA3"}`: adapters are
            trained in place of the model's weights.
        lora: arguments of `peft.LoraConfig`, such as `{"r": 16}`: `peft` for the type `"LORA"`, in all linear layers
            unless `target_modules` says otherwise.
        n_envs: rows of the vector env, where `env` is an id.
        num_generations: episodes that share a prompt (a group), where `env` is an id.
        episodes_per_update: episodes in a rollout, a multiple of the number of rows; None takes one for each row.
        learning_rate: step size of the optimizer.
        gamma: discount per token.
        ent_coef: weight of the entropy bonus, in reward per nat.
        max_grad_norm: a gradient with a larger norm is scaled down to it; infinity scales none.
        micro_batch_size: episodes per forward-backward pass at most, to save memory: gradients add up to those of the
            whole batch. None takes the whole batch.
        dtype: `"bfloat16"` runs the forward passes under autocast; trained weights stay float32, and so does all where
            it is None.
        policy_kwargs: further arguments of `TokenPolicy`: `temperature`, `top_k`, `top_p`, `value_function`,
            `gradient_checkpointing`, `optimizer_class`, `optimizer_kwargs`.
        stats_window_size: episodes that `rollout/ep_rew_mean` and `rollout/ep_len_mean` are means over.
        tensorboard_log: directory of TensorBoard logs.
        verbose: 0 is silent, 1 and 2 print what stable-baselines3 prints.
        seed: seeds Python, numpy, torch and the env.
        device: where the models are; `"auto"` takes a GPU where there is one.
        _init_setup_model: whether to build the model at once.

    Raises:
        ValueError: a value that an annotation excludes, not a TextGym env, one whose episodes or observations are not
            whole, a model that does not fit it, or an `episodes_per_update` that is no multiple.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TokenPolicy": TokenPolicy}
    apart: ClassVar[frozenset[str]] = frozenset(
        {"policy", "env", "model", "reference", "peft", "lora", "n_envs", "num_generations", "dtype", "policy_kwargs"}
        | {"stats_window_size", "tensorboard_log", "verbose", "device", "_init_setup_model"}
    )
    """Arguments that are no hyperparameters: a checkpoint keeps them in another form, or the next run chooses them."""
    takes_turns: ClassVar[bool] = False  # whether the objective is right for episodes of several turns

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        reference: Named = None,
        peft: AsJSON = None,
        lora: AsJSON = None,
        n_envs: Count = 64,
        num_generations: Count = 8,
        episodes_per_update: Count | None = None,
        learning_rate: NonNegative | Schedule = 1e-4,
        gamma: Probability = 1.0,
        ent_coef: NonNegative = 0.0,
        max_grad_norm: PositiveOrInfinite = 1.0,
        micro_batch_size: Count | None = None,
        dtype: Precision | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: Count = 100,
        tensorboard_log: str | None = None,
        verbose: Literal[0, 1, 2] = 0,
        seed: Seed | None = None,
        device: Device = "auto",
        _init_setup_model: bool = True,
    ):
        if isinstance(env, str):
            env = make_env(env, n_envs, num_generations)
        policy_kwargs = dict(policy_kwargs or {})
        if env is not None:
            env = self._wrap_env(env, verbose)
            policy_kwargs = TokenPolicy.kwargs_for(env, model, peft, lora, dtype, **policy_kwargs)
            if not self.takes_turns:
                policy_kwargs["mdp"].refuse_turns(type(self).__name__)
            check_whole_episodes(env, policy_kwargs["mdp"])
            if isinstance(reference, str) and names_a_tokenizer(reference):
                check_vocabulary(env.get_attr("tokenizer")[0], reference)
        OnPolicyAlgorithm.__init__(  # by name: a subclass may also be one of stable_baselines3.PPO
            self,
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            gamma=gamma,
            ent_coef=ent_coef,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            **WITHOUT_A_SAY,
        )
        self.episodes_per_update = episodes_per_update or (0 if env is None else self.n_envs)  # 0: not known yet
        self.micro_batch_size = micro_batch_size
        named = policy_kwargs.get("model") if isinstance(policy_kwargs.get("model"), str) else None
        self.reference_source = named if reference is None else reference
        self._reference_given = reference is not None
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def hyperparameters(cls) -> tuple[str, ...]:
        """The arguments that a checkpoint keeps as they are; each is an attribute of the same name."""
        return tuple(name for name in arguments_of(cls) if name not in cls.apart)

    @classmethod
    def adapted_arguments(cls, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the given arguments that training changes; a resumed run takes these from its checkpoint."""
        return ()

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """A Gymnasium vector env becomes a `TextVecEnv`; the rest is SB3's."""
        return OnPolicyAlgorithm._wrap_env(TextVecEnv(env) if isinstance(env, VectorEnv) else env, verbose)

    def _setup_model(self) -> None:
        self.episodes_per_update = episodes = self.episodes_per_update or self.n_envs
        if episodes % self.n_envs:
            raise ValueError(f"episodes_per_update={episodes} is not a multiple of the number of envs, {self.n_envs}")
        mdp: TextMDP = self.policy_kwargs["mdp"]
        self.n_steps = episodes // self.n_envs  # rounds of one episode per env
        self.rollout_buffer_kwargs = {"max_new_tokens": mdp.max_new_tokens}
        super()._setup_model()
        self._begin_alike()  # before a reference is a copy
        self.mdp, self.reference = mdp, None
        if self._reference_given or self.needs_reference():
            self.reference = Reference(self.token_model, self.reference_source, self._reference_given)
        if self.env is not None:
            self.check_groups(self.env)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Go on with another env that `check_env` accepts; the old one stays where it does not."""
        env = self._wrap_env(env, self.verbose)
        self.check_env(env)
        super().set_env(env, force_reset)

    def check_env(self, env: VecEnv) -> None:
        """Refuse an env to go on with, with a ValueError, where its MDP is not the policy's, or a wrapper hides it."""
        if (theirs := TokenPolicy.kwargs_for(env, self.policy.model)["mdp"]) != self.mdp:
            raise ValueError(f"the env's MDP is not the policy's: {theirs} != {self.mdp}")
        check_whole_episodes(env, self.mdp)
        self.check_groups(env)

    def check_groups(self, env: VecEnv) -> None:
        """Refuse an env whose groups of episodes are not what the objective needs, with a ValueError."""

    def needs_reference(self) -> bool:
        """Whether the objective needs the reference model; without need, none is kept unless one is given."""
        return True

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """SB3's progress, but not below 0, since a last rollout longer than asked for would reverse a falling rate."""
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)

    def _update_learning_rate(self, optimizers: Any) -> None:
        check_argument("learning_rate", self.lr_schedule(self._current_progress_remaining), NonNegative)
        super()._update_learning_rate(optimizers)

    def gradient_step(
        self,
        episodes: Episodes,
        loss: Loss,
        normalization: Normalization = "token",
        target_kl: float | None = None,
        whole_groups: bool = False,
    ) -> torch.Tensor | None:
        """One optimizer step; in the first one after a rollout, `log_probs` of the episodes are the training forward's.

        Args:
            episodes: the batch.
            loss: see `textgym.training.updates.Loss`; its statistics are logged, as means over the steps of a rollout.
            normalization: how the tokens' losses become one (`token_weights`).
            target_kl: no step is taken where the statistic `approx_kl` exceeds 1.5 times this, as in SB3.
            whole_groups: whether the loss compares the episodes of a prompt (`accumulate_gradients`).

        Returns:
            the log-probabilities of the episodes before the step, (E, T); None where none was taken.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; the weights stay as they are.
        """
        try:
            logged, log_probs = accumulate_gradients(
                self.token_model,
                episodes,
                loss,
                on_policy=self._on_policy,
                ent_coef=self.ent_coef,
                normalization=normalization,
                micro_batch_size=self.micro_batch_size,
                whole_groups=whole_groups,
            )
            for name, value in logged.items():
                self.logger.record_mean(f"train/{name}", value)
            if target_kl is not None and logged["approx_kl"] > 1.5 * target_kl:
                return None
            norm = apply_gradients(self.token_model, self.policy.optimizer, self.max_grad_norm)
            self.logger.record_mean("train/grad_norm", norm)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, at timestep {self.num_timesteps}, update {self._n_updates}") from error
        if self._on_policy:
            mismatch = (log_probs - episodes.sampled_log_probs).abs()[episodes.mask].mean()
            self.logger.record("train/log_prob_mismatch", mismatch.item())
        self._on_policy = False
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        return log_probs


def make_env(env_id: str, n_envs: int, num_generations: int) -> VectorEnv[Any, Any, Any]:
    """The vector env of a TextGym id, as agents want it.

    Raises:
        ValueError: the id is no TextGym env's.
    """
    try:
        return gym.make_vec(env_id, num_envs=n_envs, num_generations=num_generations, autoreset_mode="Disabled")
    except TypeError as error:
        if "num_generations" not in str(error):
            raise
        raise ValueError(f"{env_id!r} is not a TextGym env: {error}") from error
