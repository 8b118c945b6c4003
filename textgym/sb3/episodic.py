"""The base of every on-policy language-model agent: an SB3 algorithm that collects whole episodes.

A subclass is a constructor and `train()`, which reads `self.rollout_buffer.episodes`. What is left out on purpose:
`n_steps` (rollouts cut at a step count drop the long episodes), bootstrapping at the end (the length limit is part of
the MDP), and pickled checkpoints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from textgym.language_models import load_model
from textgym.language_models.forward import check_vocabulary
from textgym.mdp import TextMDP
from textgym.sb3 import checkpoints
from textgym.sb3.buffer import EpisodeRolloutBuffer, Episodes
from textgym.sb3.collection import log_probs_under, play_round
from textgym.sb3.policy import TokenPolicy
from textgym.sb3.vec_env import TextVecEnv

# What a loss may read: (episodes, values, log_probs, entropies), the last three (B, T) with gradient, 0 at padding.
Loss = Callable[[Episodes, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class EpisodicAlgorithm(OnPolicyAlgorithm):
    """Collects complete episodes, the same number from every env, and scores them under a frozen reference model.

    `num_timesteps` counts real tokens. Logged in each rollout: `rollout/reward` (mean return of the env),
    `rollout/kl_to_reference` (k1: the mean over episodes of sum_t log pi - log a, an unbiased estimate of KL(pi || a)
    in nats per sequence), `rollout/kl_to_reference_k3` (sum_t exp(-k1_t) - 1 + k1_t, never negative), every scorer
    component, and with autocast `rollout/log_prob_mismatch` (mean |sampling - training| log-probability).

    Args:
        policy: `"TokenPolicy"`.
        env: an env id, a TextGym env or vector env, or an SB3 `VecEnv` of them; None to load for prediction only.
        model: what `load_model` accepts; `"tiny"` by default.
        reference: what `load_model` accepts; the untrained `model` by default. It is never trained.
        n_envs: rows of the vector env, where `env` is an id.
        num_generations: episodes that share a prompt, where `env` is an id.
        episodes_per_update: episodes per rollout, a multiple of the number of envs; `n_envs` by default.
        learning_rate: a float or a function of the remaining progress.
        gamma: discount factor.
        ent_coef: weight of the entropy bonus.
        max_grad_norm: gradients are clipped to this norm.
        micro_batch_size: episodes per forward-backward pass; gradients add up to those of the full batch.
        dtype: `"bfloat16"` for autocast; weights stay float32.
        optimizer_class: a torch optimizer.
        optimizer_kwargs: its arguments, the learning rate apart.
        stats_window_size: as in SB3, as are `tensorboard_log`, `verbose`, `seed` and `device`.
        tensorboard_log: directory of TensorBoard logs.
        verbose: 0, 1 or 2.
        seed: seeds Python, numpy, torch and the env.
        device: `"auto"`, `"cpu"`, `"cuda"`.
        _init_setup_model: whether to build the model at once.

    Raises:
        ValueError: not a TextGym env, a model that does not fit it, or an `episodes_per_update` that is no multiple.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TokenPolicy": TokenPolicy}
    policy: TokenPolicy
    rollout_buffer: EpisodeRolloutBuffer
    hyperparameters: ClassVar[tuple[str, ...]] = (
        "episodes_per_update",
        "learning_rate",
        "gamma",
        "ent_coef",
        "max_grad_norm",
        "micro_batch_size",
        "seed",
    )
    """Constructor arguments that a checkpoint keeps; a subclass adds its own."""

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Any = None,
        *,
        reference: Any = None,
        n_envs: int = 64,
        num_generations: int = 8,
        episodes_per_update: int | None = None,
        learning_rate: float | Schedule = 1e-4,
        gamma: float = 1.0,
        ent_coef: float = 0.0,
        max_grad_norm: float = 1.0,
        micro_batch_size: int | None = None,
        dtype: str | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        if isinstance(env, str):
            env = gym.make_vec(env, num_envs=n_envs, num_generations=num_generations, autoreset_mode="Disabled")
        policy_kwargs: dict[str, Any] = {"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs}
        if env is not None:
            env = self._wrap_env(env, verbose)
            policy_kwargs |= TokenPolicy.kwargs_for(env, model, dtype)
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            n_steps=0,
            gamma=gamma,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=EpisodeRolloutBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Discrete,),
        )
        self.episodes_per_update = episodes_per_update or self.n_envs
        self.micro_batch_size = micro_batch_size
        named = policy_kwargs.get("model") if isinstance(policy_kwargs.get("model"), str) else None
        self.reference_source = named if reference is None else reference
        self._pending_state: dict[str, Any] | None = None
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """A Gymnasium vector env becomes a `TextVecEnv` inside a `VecMonitor`; the rest is SB3's."""
        if isinstance(env, VectorEnv):
            env = VecMonitor(TextVecEnv(env))
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        if self.episodes_per_update < 1 or self.episodes_per_update % self.n_envs:
            raise ValueError(
                f"episodes_per_update={self.episodes_per_update} is not a multiple of the number of envs, {self.n_envs}"
            )
        mdp: TextMDP = self.policy_kwargs["mdp"]
        self.n_steps = self.episodes_per_update // self.n_envs  # rounds of one episode per env
        self.rollout_buffer_kwargs = {"max_new_tokens": mdp.max_new_tokens}
        super()._setup_model()
        self.mdp = mdp
        source = self.reference_source
        self.reference = copy.deepcopy(self.policy.model) if source is None else load_model(source)
        if self.reference is self.policy.model:
            raise ValueError("the reference is the very model that is trained; pass a copy, or leave reference out")
        check_vocabulary(self.reference, mdp)
        self.reference.to(self.device).requires_grad_(False).eval()  # type: ignore[arg-type]

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the columns of `Episodes.components`: the scorer's components."""
        assert self.env is not None
        return self.env.get_attr("scorer")[0].component_names

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeRolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with complete episodes: `n_rollout_steps` rounds of one episode per env.

        Returns:
            False if a callback stopped the training.
        """
        if self._pending_state is not None:
            checkpoints.set_random_state(env, self._pending_state)
            self._pending_state = None
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()

        def on_step(live: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> bool:
            self.num_timesteps += int(live.sum())
            self._update_info_buffer([infos[i] for i in np.flatnonzero(dones & live)])
            callback.update_locals(locals())
            return callback.on_step()

        for _ in range(n_rollout_steps):
            finished = play_round(env, self.policy, self.component_names, on_step)
            if finished is None:
                return False
            rollout_buffer.add(**finished)
        sampled = rollout_buffer.episodes
        rollout_buffer.episodes = self._with_reference(sampled)
        self._log_rollout(rollout_buffer.episodes, sampled.log_probs)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def sample_episodes(self, episodes: int) -> Episodes:
        """Fresh episodes of the current policy in its env, outside the training: nothing is counted or logged.

        Args:
            episodes: how many; a multiple of the number of envs.
        """
        assert self.env is not None
        if episodes < 1 or episodes % self.n_envs:
            raise ValueError(f"episodes={episodes} is not a multiple of the number of envs, {self.n_envs}")
        self.policy.set_training_mode(False)
        buffer = EpisodeRolloutBuffer(
            episodes // self.n_envs,
            self.observation_space,
            self.action_space,
            self.device,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        while not buffer.full:
            finished = play_round(self.env, self.policy, self.component_names)
            assert finished is not None
            buffer.add(**finished)
        return self._with_reference(buffer.episodes)

    def _with_reference(self, episodes: Episodes) -> Episodes:
        """Add the reference's log-probabilities; in bfloat16, take the policy's from the training forward as well."""
        size = self.micro_batch_size
        reference = log_probs_under(self.policy, self.reference, episodes, size)
        if self.policy.dtype == "float32":
            return episodes.replace(reference_log_probs=reference)
        trained = log_probs_under(self.policy, self.policy.model, episodes, size)
        return episodes.replace(reference_log_probs=reference, log_probs=trained)

    def _log_rollout(self, episodes: Episodes, sampled_log_probs: torch.Tensor) -> None:
        if self.policy.dtype != "float32":
            mismatch = (episodes.log_probs - sampled_log_probs).abs()[episodes.mask].mean()
            self.logger.record("rollout/log_prob_mismatch", mismatch.item())
        k1 = episodes.log_probs - episodes.reference_log_probs
        self.logger.record("rollout/reward", episodes.rewards.sum(-1).mean().item())
        self.logger.record("rollout/kl_to_reference", k1.sum(-1).mean().item())
        self.logger.record("rollout/kl_to_reference_k3", (torch.expm1(-k1) + k1).sum(-1).mean().item())
        for name, values in zip(self.component_names, episodes.components.T, strict=True):
            self.logger.record(f"rollout/{name}", values.mean().item())

    def gradient_step(self, episodes: Episodes, loss: Loss) -> None:
        """One optimizer step on the mean over real tokens of a loss.

        Args:
            episodes: the batch; it goes through the model in pieces of `micro_batch_size`.
            loss: gives the *sum* over the tokens of a piece.
        """
        optimizer, tokens, total = self.policy.optimizer, int(episodes.mask.sum()), 0.0
        entropy = 0.0
        optimizer.zero_grad()
        for piece in episodes.split(self.micro_batch_size):
            values, log_probs, entropies = self.policy.evaluate_actions(piece.rows, piece.actions)
            piece_loss = (loss(piece, values, log_probs, entropies) - self.ent_coef * entropies.sum()) / tokens
            piece_loss.backward()
            total += piece_loss.item()
            entropy += entropies.sum().item() / tokens
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        optimizer.step()
        self._n_updates += 1
        self.logger.record("train/loss", total)
        self.logger.record("train/entropy", entropy)
        self.logger.record("train/grad_norm", norm.item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Write a checkpoint directory: a transformers model, its tokenizer, and the state of the training.

        Args:
            path: the directory; a `.zip` ending, which SB3's callbacks add, is left out.
            exclude: not used; SB3's signature.
            include: not used; SB3's signature.
        """
        checkpoints.save_checkpoint(path, self)

    @classmethod
    def load(cls, path: Any, env: Any = None, device: torch.device | str = "auto", **kwargs: Any) -> EpisodicAlgorithm:  # type: ignore[override]
        """Read a checkpoint directory; no code of it is executed.

        Args:
            path: the directory.
            env: needed to go on training; as in the constructor.
            device: as in the constructor.
            **kwargs: constructor arguments that replace the saved ones.

        Raises:
            FileNotFoundError: no checkpoint is there.
            ValueError: it is another algorithm's or another MDP's, or needs an argument that could not be saved.
        """
        return checkpoints.load_checkpoint(cls, path, env, device, kwargs)
