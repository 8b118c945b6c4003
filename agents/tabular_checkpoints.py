"""Checkpoints of tabular agents; `textgym.training.state` says what a checkpoint is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces

from textgym.sb3.checkpoints import check_arguments, check_functions, common_state
from textgym.sb3.loading import print_versions
from textgym.sb3.progress import count_on, progress_of
from textgym.training.state import (
    TrainingState,
    checkpoint_path,
    new_checkpoint,
    problems_of,
    read_state,
    read_tensors,
)

if TYPE_CHECKING:
    from agents.q_learning import QLearning


@dataclass(frozen=True, kw_only=True)
class TabularState(TrainingState):
    """The state of `QLearning`; the episodes that are under way are not part of it.

    Attributes:
        epsilon: of the last step.
        episodes: finished ones.
    """

    epsilon: float
    episodes: int


def save_tables(path: Any, agent: QLearning) -> None:
    """Write an agent; see `QLearning.save`."""
    common = common_state(agent, progress_of(agent, iterations=agent._n_updates))
    state = TabularState(**common, epsilon=float(agent.policy.epsilon), episodes=agent._episode_num)
    with new_checkpoint(path, state, {"tables": agent.policy.tables}):
        pass  # there is no model


def load_tables(
    cls: type[QLearning], path: Any, env: Any, device: torch.device | str, given: dict[str, Any], print_info: bool
) -> QLearning:
    """Read an agent; see `QLearning.load`."""
    path = checkpoint_path(path)
    state = read_state(path, TabularState, cls.__name__)
    if print_info:
        print_versions(state.versions)
    tables = read_tensors(path, state)["tables"]
    with problems_of(path, state.file):
        check_arguments(state, cls.hyperparameters())
        arguments = state.arguments | given
        check_functions(state, arguments)
        made = cls("TabularPolicy", env, device=device, _init_setup_model=False, **arguments)
        if env is None:
            made.observation_space, made.action_space = (spaces.Discrete(n) for n in tables.shape[1:])
        made._setup_model()
        mine, tables = made.policy.tables, tables.to(made.device)
        if mine.shape != tables.shape or (env is not None and not mine.isneginf().equal(tables.isneginf())):
            raise ValueError(
                f"the checkpoint's tables, {tuple(tables.shape)} (tables, states, actions), do not fit: here they are "
                f"{tuple(mine.shape)}, and the forbidden actions must be the same"
            )
    mine.copy_(tables)
    count_on(made, state)
    made.policy.epsilon, made._episode_num, made._pending = state.epsilon, state.episodes, state
    return made
