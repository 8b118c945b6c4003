"""The part of an agent that can be interrupted: it counts, saves, loads and copies itself between two rollouts."""

from __future__ import annotations

from typing import Any, Self

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback

from textgym.arguments import Count, check_argument
from textgym.sb3 import checkpoints, loading
from textgym.sb3.progress import count_on, progress_of, restore_progress
from textgym.training.state import Progress


class ResumableAlgorithm(OnPolicyAlgorithm):
    """An SB3 algorithm whose checkpoints are states between two rollouts, from which it goes on bit for bit on a CPU.

    A subclass's `collect_rollouts` calls `begin_rollout`, and `end_sampling` when all episodes are there.
    """

    _iterations = 0
    _pending: Progress | None = None  # what a checkpoint held, until training goes on
    _rollout_start: Progress | None = None  # while episodes are sampled: where a checkpoint begins again

    def learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Collect and train in turn, as SB3 does; unlike there, rollouts are counted on from call to call, too.

        Args:
            total_timesteps: tokens to generate, further ones where `reset_num_timesteps` is False; the rollout that
                reaches them is completed.
            callback: called at every step of the vector env.
            log_interval: rollouts between rows of the log; None for no log.
            tb_log_name: of the TensorBoard run; the agent's name by default.
            reset_num_timesteps: False to go on counting.
            progress_bar: show one (tqdm and rich).

        Raises:
            ValueError: `total_timesteps` or `log_interval` is below 1, there is no env, or what a rollout or an
                update raises.
        """
        check_argument("total_timesteps", total_timesteps, Count)
        check_argument("log_interval", log_interval, Count | None)
        if self.env is None:
            raise ValueError("an algorithm without an env cannot learn; pass env= to load(), or call set_env")
        if self._rollout_start is not None:  # the last rollout was given up, by a callback or an error: sample it again
            self._pending, self._rollout_start = self._rollout_start, None
            count_on(self, self._pending)
        name = tb_log_name or type(self).__name__
        total, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, name, progress_bar)
        self._iterations = 0 if reset_num_timesteps else self._iterations
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total and self.collect_rollouts(
            self.env, callback, self.rollout_buffer, self.n_steps
        ):
            self._iterations += 1
            self._update_current_progress_remaining(self.num_timesteps, total)
            if log_interval is not None and self._iterations % log_interval == 0:
                self.dump_logs(self._iterations)
            self.train()
        callback.on_training_end()
        return self

    def begin_rollout(self) -> None:
        """Note the state that a checkpoint has until the episodes are sampled; after `load`, take it up first."""
        if self._pending is not None:
            restore_progress(self, self._pending)
            self._pending = None
        self._rollout_start = progress_of(self, self._iterations)

    def end_sampling(self) -> None:
        """Forget it, because the update of the weights begins."""
        self._rollout_start = None

    @property
    def is_sampling(self) -> bool:
        """Whether episodes are being sampled, or were when an error or a callback ended that."""
        return self._rollout_start is not None

    @property
    def resume_from(self) -> Progress:
        """Where a training that goes on from a checkpoint written now begins."""
        return self._rollout_start or self._pending or progress_of(self, self._iterations)

    def extra_tensors(self) -> dict[str, torch.Tensor]:
        """What a subclass learns beside its weights, for checkpoints."""
        return {}

    def load_extra_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `extra_tensors`."""

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Write a checkpoint: a transformers model, its tokenizer, and the state of the training between two rollouts.

        While episodes are sampled, or after a callback stopped that, it is the state before the rollout: a training
        that goes on from there samples it again. Callbacks are not part of it.

        Args:
            path: the folder; a `.zip` ending, which SB3's callbacks add, is left out. A checkpoint that is there is
                replaced only by a whole one.
            exclude: not used; SB3's signature.
            include: not used; SB3's signature.

        Raises:
            ValueError: the algorithm has no env, which holds the tokenizer.
            FileExistsError: something other than a checkpoint is there.
            OSError: it could not be written.
        """
        if self.env is None:
            raise ValueError("an algorithm without an env cannot be saved; pass env= to load()")
        checkpoints.save_checkpoint(path, self, self.resume_from)  # type: ignore[arg-type]

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: Any,
        env: Any = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Read a checkpoint; no code of it is executed.

        Args:
            path: the folder.
            env: needed to go on training; as in the constructor.
            device: as in the constructor.
            custom_objects: constructor arguments that replace the saved ones, as in SB3.
            print_system_info: print the versions of the packages here and of those that wrote the checkpoint.
            force_reset: as every rollout begins with a reset of the env, it can only be True.
            **kwargs: constructor arguments that replace the saved ones; of `policy_kwargs`, those that are given.

        Raises:
            FileNotFoundError: no checkpoint is there.
            CheckpointError: a file is missing or damaged, or it is another algorithm's, another MDP's, or needs an
                argument that could not be saved.
            TypeError: there is no such argument.
            ValueError: an argument cannot be applied.
        """
        given = loading.given_arguments(cls, env, custom_objects, force_reset, kwargs)
        if print_system_info:
            loading.print_versions(checkpoints.read_agent_state(path).versions)
        return checkpoints.load_checkpoint(cls, path, env, device, given)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: all but the logger, whose files are open; `learn` makes one."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_logger", "_custom_logger")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The inverse of `__getstate__`."""
        self.__dict__ |= state | {"_custom_logger": False}
