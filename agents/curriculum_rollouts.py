"""Rollouts whose prompts a curriculum draws; what it has seen is part of a checkpoint."""

from __future__ import annotations

from typing import Any, cast

import torch
from stable_baselines3.common.vec_env import VecEnv

from textgym.curriculum import Curriculum, PromptCurriculum
from textgym.sb3 import EpisodicAlgorithm
from textgym.training import Episodes


class CurriculumRollouts(EpisodicAlgorithm):
    """Draws prompts by `textgym.curriculum` while it samples for training; fresh samples for others are uniform.

    Attributes:
        curriculum: `"uniform"` leaves the draw to the env.
        curriculum_decay: see `PromptCurriculum`.
        success_at_least: the return from which on a text is right.
        prompt_curriculum: what is known of the prompts; None with `"uniform"`, or without an env.
    """

    curriculum: Curriculum
    curriculum_decay: float
    success_at_least: float
    prompt_curriculum: PromptCurriculum | None = None
    _saved_counts: torch.Tensor | None = None  # of a checkpoint, until there is an env

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None:
            self._set_up_curriculum(self.env)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Go on with another env that `check_env` accepts."""
        super().set_env(env, force_reset)
        assert self.env is not None
        self._set_up_curriculum(self.env)

    def check_env(self, env: VecEnv) -> None:
        """Check what `EpisodicAlgorithm` checks, and that a curriculum's prompts are as many as they were."""
        super().check_env(env)
        known, now = self.prompt_curriculum, env.get_attr("task")[0].prompts.num_prompts
        if known is not None and now != known.counts.shape[1]:
            raise ValueError(f"the curriculum knows {known.counts.shape[1]} prompts, and the env has {now}")

    def extra_tensors(self) -> dict[str, torch.Tensor]:
        """What the texts of each prompt came to, for checkpoints."""
        known = self.prompt_curriculum
        return {} if known is None else {"curriculum": torch.from_numpy(known.counts)}

    def load_extra_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `extra_tensors`.

        Raises:
            ValueError: they are of another number of prompts than the env's.
        """
        self._saved_counts = tensors.get("curriculum")
        if self.env is not None:
            self._restore_counts()

    def begin_rollout(self) -> None:
        """Note where a resumed training would begin, and that no prompt has been met since then."""
        super().begin_rollout()
        self._met: list[Episodes] = []

    def process_rollout(self, episodes: Episodes) -> Episodes:
        """The episodes as they are; the curriculum sees what came of all that were sampled."""
        if self.prompt_curriculum is not None:
            met = Episodes.concatenate(self._met).of_all_processes(own_prompts=False)
            right = met.rewards.sum(-1) >= self.success_at_least
            self.prompt_curriculum.update(met.prompt_ids.cpu().numpy(), right.cpu().numpy())
            self._met = []
        return super().process_rollout(episodes)

    def _fill(self, buffer: Any, env: VecEnv, rounds: int, actor: Any, on_step: Any = None) -> bool:
        """Collect episodes, those of a training from prompts that the curriculum draws."""
        if on_step is None or self.prompt_curriculum is None:
            return super()._fill(buffer, env, rounds, actor, on_step)
        tables = [task.prompts for task in env.get_attr("task")]
        for table in tables:
            table.chooser = self.prompt_curriculum.draw
        try:
            finished = super()._fill(buffer, env, rounds, actor, on_step)
        finally:
            for table in tables:
                table.chooser = None
        if finished:
            self._met.append(buffer.episodes)
        return finished

    def _set_up_curriculum(self, env: VecEnv) -> None:
        if self.curriculum == "uniform" or self.prompt_curriculum is not None:
            return
        if (num_prompts := env.get_attr("task")[0].prompts.num_prompts) is None:
            raise ValueError(
                f"curriculum is {self.curriculum!r}, but the env's prompts come from a function and have no end, so "
                "none has a success rate; give the env a finite source, or choose 'uniform'"
            )
        self.prompt_curriculum = PromptCurriculum(cast(Any, self.curriculum), num_prompts, self.curriculum_decay)
        self._restore_counts()

    def _restore_counts(self) -> None:
        known, saved = self.prompt_curriculum, self._saved_counts
        if known is not None and saved is not None:
            if (now := known.counts.shape) != tuple(saved.shape):
                raise ValueError(f"the curriculum knows {saved.shape[1]} prompts, and the env has {now[1]}")
            known.counts = saved.cpu().double().numpy()
        self._saved_counts = None
