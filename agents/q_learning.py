"""Tabular Q-learning (Watkins and Dayan 1992) and double Q-learning (van Hasselt 2010) on a vector env.

Left out on purpose: replay, eligibility traces and a step size per cell. This is the textbook's algorithm, whose fixed
point dynamic programming gives exactly. Tables are tensors, updated for all rows at once; the interface is that of
stable-baselines3's DQN.
"""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule, safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, is_vecenv_wrapped

from agents.table_views import TableViews
from agents.tabular import TabularPolicy, Transitions, forbidden_tokens, update_tables
from agents.tabular_checkpoints import load_tables, save_tables
from textgym.arguments import CheckedArguments, Count, PositiveShare, Probability, Seed, arguments_of, check_argument
from textgym.language_models.devices import Device
from textgym.mdp import TextMDP
from textgym.sb3 import TextVecEnv
from textgym.sb3.loading import given_arguments
from textgym.sb3.progress import restore_progress
from textgym.training.state import Progress
from textgym.wrappers import DiscreteContexts, VectorDiscreteContexts


class QLearning(CheckedArguments, TableViews):
    """Q-learning on any env with Discrete observations and actions, and on a TextGym env that is small enough.

    States of a TextGym env are the numbers of contexts (`textgym.wrappers.VectorDiscreteContexts`); tokens that it
    forbids have Q = -inf and are never chosen. Otherwise tables start at 0.

    Logged: `rollout/ep_rew_mean` and `rollout/ep_len_mean` as in SB3, `train/td_error` (mean absolute one since the
    last row of the log), `train/epsilon`, `train/learning_rate`, `train/n_updates`.

    Example:
        >>> from agents import QLearning
        >>> agent = QLearning("TabularPolicy", "TextGenToy-v0", seed=0)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=40_000).show("1 1")  # doctest: +SKIP

    Args:
        policy: `"TabularPolicy"`.
        env: an env id (with `n_envs`), an env, a vector env in SameStep or Disabled mode, or an SB3 `VecEnv`; None to
            load for prediction only.
        n_envs: rows of the vector env, where `env` is an id.
        learning_rate: alpha, the share of the way to its target that an entry moves; 1 if nothing is random.
        gamma: discount per action.
        double_q: keep two tables, each updated by the other's values of its best actions: less overestimation where
            rewards or transitions are random, and slower.
        exploration_fraction: the part of the training in which epsilon falls, linearly; named as in SB3's DQN, whose
            default is 0.1: a table that is updated off-policy gains from a longer look around.
        exploration_initial_eps: epsilon at the start.
        exploration_final_eps: epsilon from there on, and in `predict(deterministic=False)` after the training.
        stats_window_size: episodes that `rollout/ep_rew_mean` and `rollout/ep_len_mean` are means over.
        tensorboard_log: directory of TensorBoard logs.
        verbose: 0 is silent, 1 and 2 print what stable-baselines3 prints.
        seed: seeds Python, numpy, torch and the env.
        device: where the tables are; `"auto"` takes a GPU where there is one. The env is on the CPU.
        _init_setup_model: whether to build the tables at once.

    Raises:
        ValueError: spaces that are not Discrete, a TextGym env with too many contexts, or a number out of its range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TabularPolicy": TabularPolicy}
    apart: ClassVar[frozenset[str]] = frozenset(
        {"policy", "env", "stats_window_size", "tensorboard_log", "verbose", "device", "_init_setup_model"}
    )
    """Arguments that a checkpoint does not keep: the next run chooses them."""

    @classmethod
    def hyperparameters(cls) -> tuple[str, ...]:
        """The arguments that a checkpoint keeps; each is an attribute of the same name."""
        return tuple(name for name in arguments_of(cls) if name not in cls.apart)

    def __init__(
        self,
        policy: str | type[TabularPolicy],
        env: Any,
        *,
        n_envs: Count = 64,
        learning_rate: PositiveShare | Schedule = 0.5,
        gamma: Probability = 1.0,
        double_q: bool = False,
        exploration_fraction: Probability = 1.0,
        exploration_initial_eps: Probability = 1.0,
        exploration_final_eps: Probability = 0.05,
        stats_window_size: Count = 100,
        tensorboard_log: str | None = None,
        verbose: Literal[0, 1, 2] = 0,
        seed: Seed | None = None,
        device: Device = "auto",
        _init_setup_model: bool = True,
    ):
        self.n_envs, self.gamma, self.double_q = n_envs, gamma, double_q
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps, self.exploration_final_eps = exploration_initial_eps, exploration_final_eps
        if isinstance(env, str):
            native = gym.spec(env).vector_entry_point is not None
            env = gym.make_vec(env, num_envs=n_envs) if native else make_vec_env(env, n_envs)
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs={"num_tables": 2 if double_q else 1},
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        self._pending: Progress | None = None  # what a checkpoint held, until training goes on
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """An SB3 `VecEnv` of Discrete spaces, whose rows start anew by themselves and report their episodes."""
        text = isinstance(getattr(env.unwrapped, "mdp", None), TextMDP)
        if isinstance(env, VectorEnv):
            numbered = isinstance(env.single_observation_space, spaces.Discrete)
            env = TextVecEnv(VectorDiscreteContexts(env) if text and not numbered else env)
        elif isinstance(env, gym.Env):
            numbered = isinstance(env.observation_space, spaces.Discrete)
            env = BaseAlgorithm._wrap_env(DiscreteContexts(env) if text and not numbered else env, verbose)
        for name in ("observation_space", "action_space"):
            space = getattr(env, name)
            if not isinstance(space, spaces.Discrete) or space.start != 0:
                raise ValueError(f"the env's {name} is {space}; tables need Discrete(n), counted from 0")
        return env if is_vecenv_wrapped(env, VecMonitor) or env.env_is_wrapped(Monitor)[0] else VecMonitor(env)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        span = self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        self.exploration_schedule = LinearSchedule(*span)
        policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs)
        self.policy = policy.to(self.device)  # type: ignore[assignment]
        self.policy.epsilon = self.exploration_initial_eps
        if self.env is not None and self.env.has_attr("mdp"):
            forbidden = forbidden_tokens(self.env.get_attr("mdp")[0])
            self.policy.tables.masked_fill_(forbidden.to(self.device), -torch.inf)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 100,
        tb_log_name: str = "QLearning",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> QLearning:
        """Act and learn, as in SB3.

        Args:
            total_timesteps: transitions, of all rows together.
            callback: called at every step of the vector env, each of which is a rollout.
            log_interval: steps of the vector env between rows of the log; None for no log.
            tb_log_name: of the TensorBoard run.
            reset_num_timesteps: False to go on counting.
            progress_bar: show one (tqdm and rich).
        """
        check_argument("total_timesteps", total_timesteps, Count)
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        assert self.env is not None
        if self._pending is not None:
            restore_progress(self, self._pending)
            self._pending = None
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.policy.epsilon = self.exploration_schedule(self._current_progress_remaining)
            batch = self._step(callback)
            if batch is None:
                break
            self._train(batch)
            if log_interval is not None and self._n_updates % log_interval == 0:
                self._dump_logs()
        callback.on_training_end()
        return self

    def _step(self, callback: BaseCallback) -> Transitions | None:
        """One step of the vector env; None if a callback stopped the training."""
        assert self.env is not None
        callback.on_rollout_start()
        observations = torch.as_tensor(self._last_obs, device=self.device)  # (N,)
        actions = self.policy(observations)
        new_obs, rewards, dones, infos = self.env.step(actions.cpu().numpy())
        self._last_obs = new_obs  # type: ignore[assignment]
        self.num_timesteps += self.n_envs
        self._episode_num += int(dones.sum())
        self._update_info_buffer(infos, dones)
        callback.update_locals(locals())
        if not callback.on_step():
            return None
        callback.on_rollout_end()
        next_obs, terminated = np.array(new_obs), dones.copy()
        for i in np.flatnonzero(dones):
            if infos[i].get("TimeLimit.truncated", False):
                next_obs[i], terminated[i] = infos[i]["terminal_observation"], False
        result = (torch.as_tensor(x, device=self.device) for x in (rewards.astype(np.float32), next_obs, terminated))
        return Transitions(observations, actions, *result)

    def _train(self, batch: Transitions) -> None:
        tables = self.policy.tables
        chosen = torch.randint(len(tables), batch.actions.shape, device=self.device)
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        check_argument("learning_rate", learning_rate, Probability)
        td_errors = update_tables(tables, chosen, batch, learning_rate, self.gamma)
        self._n_updates += 1
        self.logger.record_mean("train/td_error", td_errors.abs().mean().item())
        self.logger.record("train/epsilon", self.policy.epsilon)
        self.logger.record("train/learning_rate", learning_rate)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _dump_logs(self) -> None:
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if self.ep_info_buffer:
            for name, key in (("ep_rew_mean", "r"), ("ep_len_mean", "l")):
                self.logger.record(f"rollout/{name}", safe_mean([episode[key] for episode in self.ep_info_buffer]))
        self.logger.record("time/episodes", self._episode_num, exclude="tensorboard")
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Write a checkpoint folder (`textgym.training.state`) without a model: tables, counters, random state.

        The episodes that are under way are not part of it.

        Args:
            path: the folder; a `.zip` ending, which SB3's callbacks add, is left out.
            exclude: not used; SB3's signature.
            include: not used; SB3's signature.

        Raises:
            ValueError: the agent has no env.
            FileExistsError: something other than a checkpoint is there.
            OSError: it could not be written.
        """
        if self.env is None:
            raise ValueError("an algorithm without an env cannot be saved; pass env= to load()")
        save_tables(path, self)

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
    ) -> QLearning:
        """Read a checkpoint folder; no code of it is executed.

        Args:
            path: the folder.
            env: needed to go on training, which begins with new episodes; as in the constructor.
            device: as in the constructor.
            custom_objects: constructor arguments that replace the saved ones, as in SB3.
            print_system_info: print the versions of the packages here and of those that wrote the checkpoint.
            force_reset: as training goes on with new episodes, it can only be True.
            **kwargs: constructor arguments that replace the saved ones.

        Raises:
            FileNotFoundError: no checkpoint is there.
            CheckpointError: a file is missing or damaged, or it is another algorithm's, does not fit the env, or needs
                an argument that could not be saved.
            TypeError: there is no such argument.
        """
        given = given_arguments(cls, env, custom_objects, force_reset, kwargs)
        return load_tables(cls, path, env, device, given, print_system_info)
