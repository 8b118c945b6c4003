"""The part of an agent that collects: whole episodes of the env, with what training asks of them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from textgym.envs.task import TextTask
from textgym.language_models.token_model import TokenModel
from textgym.matching import Target
from textgym.sb3.buffer import EpisodeRolloutBuffer
from textgym.sb3.collection import OnStep, collect
from textgym.sb3.policy import TokenPolicy
from textgym.sb3.resumable import ResumableAlgorithm
from textgym.scorers.trainer import Trainer, TrainerState, take_metrics
from textgym.training import distributed
from textgym.training.actors import Actor
from textgym.training.episodes import Episodes
from textgym.training.features import check_features, features_of
from textgym.training.reference import Reference, with_log_probs


class EpisodeCollection(ResumableAlgorithm):
    """An SB3 algorithm whose rollouts are complete episodes, the same number from every row of the env.

    Attributes:
        reference: the frozen reference model; None where the objective needs none.
        micro_batch_size: episodes per forward pass at most.
    """

    policy: TokenPolicy
    rollout_buffer: EpisodeRolloutBuffer
    reference: Reference | None
    micro_batch_size: int | None
    _on_policy = False  # whether the policy still is the one that sampled the rollout

    @property
    def token_model(self) -> TokenModel:
        """The policy's language model with its distribution and value head."""
        return self.policy.token_model

    @property
    def task(self) -> TextTask:
        """The env's tokenizer, prompts and scorer."""
        assert self.env is not None
        return self.env.get_attr("task")[0]

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the columns of `Episodes.components`: the scorer's components."""
        return self.task.scorer.component_names

    def features(self, episodes: Episodes) -> dict[str, torch.Tensor]:
        """What targets read, (E,) float64 each: the scorer's components, and the return as `"reward"`."""
        return features_of(episodes, self.component_names)

    @staticmethod
    def check_features(target: Target, env: VecEnv) -> None:
        """Refuse a target that reads what the env does not report, with a ValueError."""
        check_features(target, env.get_attr("scorer")[0].component_names)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeRolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with complete episodes: `n_rollout_steps` of every env.

        Returns:
            False if a callback stopped the training.
        """
        self.begin_rollout()
        self._part_random_numbers()
        before, actor = self.num_timesteps, self.actor()
        actor.reset()
        rollout_buffer.reset()
        callback.on_rollout_start()

        def on_step(live: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> bool:
            self.num_timesteps += int(live.sum())
            self._update_info_buffer([infos[i] for i in np.flatnonzero(dones & live)])
            callback.update_locals(locals())
            return callback.on_step()

        state = TrainerState(self._n_updates, self.num_timesteps, self._total_timesteps)
        for trainer in self._trainers():
            trainer.state = state
        start, seconds, waited = time.perf_counter(), *self._scoring_seconds()
        finished = self._fill(rollout_buffer, env, n_rollout_steps, actor, on_step)
        if not all(distributed.from_all(finished)):
            return False
        after = self._scoring_seconds()
        self.logger.record("time/scoring", after[0] - seconds)
        self.logger.record("time/scoring_share", (after[1] - waited) / (time.perf_counter() - start))
        self.end_sampling()
        own = self.task.prompts.num_prompts is None
        episodes = self.with_terms(rollout_buffer.episodes).of_all_processes(own)
        self.num_timesteps = before + sum(distributed.from_all(self.num_timesteps - before))
        rollout_buffer.episodes = self.process_rollout(episodes)
        self._log_rollout(rollout_buffer.episodes)
        self._log_scorer(rollout_buffer.episodes)
        self._on_policy = True
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def sample_episodes(self, episodes: int) -> Episodes:
        """Fresh episodes of the current policy in its env, outside the training: nothing is counted or logged.

        Args:
            episodes: how many; a multiple of the number of envs.
        """
        if episodes < 1 or episodes % self.n_envs:
            raise ValueError(f"episodes={episodes} is not a multiple of the number of envs, {self.n_envs}")
        return with_log_probs(
            self.token_model,
            self.reference,
            self._collect(episodes // self.n_envs, self.token_model),
            self.micro_batch_size,
        )

    def actor(self) -> Actor:
        """What samples the episodes of a rollout: the policy, or a proposal that a subclass corrects for."""
        return self.token_model

    def with_terms(self, episodes: Episodes) -> Episodes:
        """A rollout's episodes with what models say of them; a subclass may ask more of them."""
        return with_log_probs(self.token_model, self.reference, episodes, self.micro_batch_size)

    def process_rollout(self, episodes: Episodes) -> Episodes:
        """A rollout's episodes as training is to see them; a subclass may add to them what it needs."""
        return episodes

    def _collect(self, rounds: int, actor: Actor) -> Episodes:
        """Episodes outside the training, `rounds` of every env, without the reference's log-probabilities."""
        assert self.env is not None
        spaces_of_env = self.observation_space, self.action_space
        buffer = EpisodeRolloutBuffer(
            rounds, *spaces_of_env, self.device, n_envs=self.n_envs, **self.rollout_buffer_kwargs
        )
        self._fill(buffer, self.env, rounds, actor)
        return buffer.episodes

    def _collect_each(self, prompts: int, episodes: int, actor: Actor) -> Episodes:
        """Episodes outside the training, `episodes` of each of the env's first prompts, like `_collect`."""
        assert self.env is not None
        table, wanted = self.env.get_attr("task")[0].prompts, prompts * episodes
        parts = []
        for ids in np.resize(np.arange(prompts), (-(-wanted // self.n_envs), self.n_envs)):  # all, again and again
            self.env.set_options([{"prompt": table.pin(i)} for i in ids])
            parts.append(self._collect(1, actor))
        return Episodes.concatenate(parts).select(slice(wanted))

    def _begin_alike(self) -> None:
        """Take the first process's weights, whatever this one has drawn for itself."""
        distributed.copy_first(self.policy.parameters())

    def _part_random_numbers(self) -> None:
        """Give each process but the first, whose random state checkpoints hold, random numbers of its own."""
        if distributed.world_size() == 1:
            return
        drawn = distributed.from_first(int(torch.randint(2**31, ())))
        if rank := distributed.rank():
            assert self.env is not None
            seed = int(np.random.SeedSequence([drawn, rank]).generate_state(1)[0])
            set_random_seed(seed)
            self.env.seed(seed)

    def _fill(
        self, buffer: EpisodeRolloutBuffer, env: VecEnv, rounds: int, actor: Actor, on_step: OnStep | None = None
    ) -> bool:
        """Collect `rounds` episodes of every env into the buffer; False if a callback stopped it."""
        self.policy.set_training_mode(False)
        try:
            finished = collect(env, actor, rounds, self.component_names, on_step)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, at timestep {self.num_timesteps}, update {self._n_updates}") from error
        if finished is not None:
            buffer.fill(**finished)
        return finished is not None

    def _log_rollout(self, episodes: Episodes) -> None:
        self.logger.record("rollout/reward", episodes.rewards.sum(-1).mean().item())
        self.logger.record("rollout/cache_mib", self.token_model.cache_bytes / 2**20)
        if self.reference is not None:
            k1 = episodes.log_probs - episodes.reference_log_probs
            self.logger.record("rollout/kl_to_reference", k1.sum(-1).mean().item())
            if not self.token_model.distribution.truncation:  # k3 needs E_pi[a / pi] = 1
                self.logger.record("rollout/kl_to_reference_k3", (torch.expm1(-k1) + k1).sum(-1).mean().item())
        for name, values in zip(self.component_names, episodes.components.T, strict=True):
            self.logger.record(f"rollout/{name}", values.nanmean().item())

    def _log_scorer(self, episodes: Episodes) -> None:
        for name, values in zip(self.component_names, episodes.components.T, strict=True):
            known = values[~values.isnan()]
            self.logger.record(f"scorer/{name}/std", known.std(correction=0).item())
            self.logger.record(f"scorer/{name}/applies", len(known) / len(values))
        for name, value in take_metrics(self._trainers()).items():
            self.logger.record(f"scorer/{name}", value)

    def _scoring_seconds(self) -> tuple[float, float]:
        """Seconds that scorers have taken so far, and those of them in which nothing else went on."""
        seconds, overlapped = (sum(getattr(t, name) for t in self._trainers()) for name in ("seconds", "overlapped"))
        return seconds, seconds - overlapped

    def _trainers(self) -> list[Trainer]:
        """What the env's scorers tell; several where the env is made of single ones."""
        assert self.env is not None
        return list({id(task): task.trainer for task in self.env.get_attr("task")}.values())
