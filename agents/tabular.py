"""Tables of Q-values on tensors: the epsilon-greedy policy, and the update of many transitions at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule

from textgym.contexts import check_enumerable
from textgym.mdp import TextMDP


class TabularPolicy(BasePolicy):
    """Epsilon-greedy in the mean of one or two tables of Q-values.

    Args:
        observation_space: `Discrete(S)`.
        action_space: `Discrete(A)`.
        lr_schedule: not used; SB3's signature.
        num_tables: M, 1 or 2.

    Attributes:
        tables: (M, S, A) float32, 0 at first; -inf where a state forbids an action.
        epsilon: the probability of an action drawn uniformly from the allowed ones.
    """

    def __init__(
        self,
        observation_space: spaces.Discrete,
        action_space: spaces.Discrete,
        lr_schedule: Schedule | None = None,
        num_tables: int = 1,
    ):
        super().__init__(observation_space, action_space)
        # A parameter, because SB3 reads the device off the parameters.
        tables = torch.zeros(num_tables, int(observation_space.n), int(action_space.n))
        self.tables, self.epsilon = torch.nn.Parameter(tables, requires_grad=False), 0.0

    def q_values(self, observations: torch.Tensor) -> torch.Tensor:
        """Q(s, .), the mean of the tables: (...) int64 -> (..., A)."""
        return self.tables[:, observations].mean(0)

    def forward(self, observations: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        """Actions, (N,) int64 -> (N,) int64; greedy ones if `deterministic`, the first of equally good ones."""
        q_values = self.q_values(observations)  # (N, A)
        greedy = q_values.argmax(-1)
        if deterministic:
            return greedy
        uniform = torch.rand_like(q_values).masked_fill(q_values.isneginf(), -1.0).argmax(-1)
        return torch.where(torch.rand(greedy.shape, device=greedy.device) < self.epsilon, uniform, greedy)

    def _predict(self, observation: torch.Tensor, deterministic: bool = False) -> torch.Tensor:  # type: ignore[override]
        return self(observation, deterministic)


class Transitions(NamedTuple):
    """N transitions: `observations`, `actions`, `next_observations` int64, `rewards` float32, `terminated` bool, (N,).

    Where `terminated`, the next state has the value 0. Where an episode was truncated, it has a value like any other.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: torch.Tensor
    terminated: torch.Tensor


def update_tables(
    tables: torch.Tensor, chosen: torch.Tensor, batch: Transitions, learning_rate: float, gamma: float
) -> torch.Tensor:
    """Q(s, a) <- Q(s, a) + alpha [r + gamma max_a' Q(s', a') - Q(s, a)] for N transitions at once, in place.

    With two tables, the chosen one is updated and a' is its best action, but Q(s', a') is read in the other (van
    Hasselt 2010, algorithm 1). All targets are those before the step. A cell that k rows visit moves by the share
    1 - (1 - alpha)^k towards the mean of their targets: what applying them one after another gives, on average over
    all orders.

    Args:
        tables: (M, S, A) float32, M = 1 or 2.
        chosen: (N,) int64, the table that each transition updates.
        batch: the transitions.
        learning_rate: alpha.
        gamma: discount factor.

    Returns:
        the brackets, (N,) float32.
    """
    best = tables[chosen, batch.next_observations].argmax(-1)
    other = len(tables) - 1 - chosen  # the only table itself, or the other of two
    next_values = tables[other, batch.next_observations, best].masked_fill(batch.terminated, 0.0)
    td_errors = batch.rewards + gamma * next_values - tables[chosen, batch.observations, batch.actions]
    cells = (chosen * tables.shape[1] + batch.observations) * tables.shape[2] + batch.actions
    cells, cell_of_row, visits = cells.unique(return_inverse=True, return_counts=True)
    # index_put_ adds in a fixed order on CUDA, where index_add_ does not.
    sums = td_errors.new_zeros(len(cells)).index_put_((cell_of_row,), td_errors, accumulate=True)
    tables.view(-1)[cells] += (1 - (1 - learning_rate) ** visits) * sums / visits
    return td_errors


def forbidden_tokens(mdp: TextMDP) -> torch.Tensor:
    """Which tokens each context forbids, (S + 1, K + 1) bool; the last row, the ended episode, forbids none."""
    _, actions = check_enumerable(mdp)
    lengths = np.arange(mdp.max_new_tokens)
    allowed = np.repeat(mdp.action_masks(lengths), (actions - 1) ** lengths, axis=0)  # K^d contexts of length d
    return torch.from_numpy(np.append(~allowed, np.zeros((1, actions), bool), axis=0))
