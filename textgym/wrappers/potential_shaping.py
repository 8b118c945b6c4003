"""Potential-based reward shaping: a reward at the end becomes one at every token, and the best policy stays the same.

After Ng, Harada and Russell (1999), "Policy invariance under reward transformations", Theorem 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from textgym.arguments import Probability, check_argument
from textgym.envs.task import TextTask
from textgym.importing import import_string
from textgym.mdp import BoolArray, IntArray
from textgym.scorers import Generations, Scorer, make_scorer
from textgym.scorers.base import FloatArray
from textgym.wrappers.episodes import task_of
from textgym.wrappers.reward_terms import RewardTerm, TermWrapper, VectorTermWrapper


class PotentialShaping(TermWrapper):
    """Adds gamma Phi(s') - Phi(s) to every reward, where Phi, the potential, says how promising a text so far is.

    Phi of an episode's end is 0, so the added terms, discounted by gamma, sum up to -Phi(s_0) in every episode: the
    optimal policy is the same for every potential (Ng et al. 1999, Theorem 1), and so is the policy gradient of whole
    returns with a baseline per prompt. With gamma 1 and the env's own scorer as the potential, each token is paid by
    how much it changes the score.

    At the end `info["unshaped_return"]` is the episode's undiscounted return without the shaping.

    Args:
        env: a TextGym env.
        potential: Phi: what `make_scorer` accepts, asked about texts that are not finished; or a function (or the
            import string of one) of observations, (n, P + T) int64, that gives n numbers. Give a function that is to
            be called as TRL calls reward functions as `{"name": "function", "function": ...}`.
        gamma: the discount of the agent that is trained, in [0, 1]; with another one the best policy may change.

    Raises:
        ValueError: another env, a potential that pays per token, or a gamma outside [0, 1].
        ScorerError: (when stepping) the potential failed, or is not one finite number per row.
    """

    def __init__(self, env: gym.Env[Any, Any], potential: Any, gamma: float = 1.0):
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, potential=potential, gamma=gamma)
        super().__init__(env, PotentialDifference(task_of(env), potential, gamma))


class VectorPotentialShaping(VectorTermWrapper):
    """`PotentialShaping` for the native vector env; the potential is asked once a step about all rows that go on.

    `unshaped_return`, (N,) float64 with its mask, is in `info["final_info"]` under SameStep, and in `info` otherwise.

    Args:
        env: a TextGym vector env, of `gym.make_vec`.
        potential: see `PotentialShaping`.
        gamma: see `PotentialShaping`.

    Raises:
        ValueError: as `PotentialShaping`.
        ScorerError: as `PotentialShaping`.
    """

    def __init__(self, env: VectorEnv, potential: Any, gamma: float = 1.0):
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, potential=potential, gamma=gamma)
        super().__init__(env, PotentialDifference(task_of(env), potential, gamma))


class PotentialDifference(RewardTerm):
    """F = gamma Phi(s') - Phi(s) of N rows, with Phi = 0 where an episode has ended."""

    def __init__(self, task: TextTask, potential: Any, gamma: float):
        check_argument("gamma", gamma, Probability)
        self.gamma, self._task, self._potential = gamma, task, make_potential(potential)
        self._values = np.zeros(0)  # (N,) Phi of the last observations
        self._over = np.zeros(0, bool)  # (N,) which of them are of episodes that have ended

    def reset(self, observations: IntArray, prompt_ids: IntArray, begun: BoolArray) -> None:
        """Ask for the potentials of the episodes that begin."""
        if len(self._values) != len(observations):
            self._values, self._over = np.zeros(len(observations)), np.ones(len(observations), bool)
        self._values[begun], self._over[begun] = self._of(observations[begun], prompt_ids[begun])

    def step(
        self, actions: IntArray, observations: IntArray, prompt_ids: IntArray, terminations: BoolArray
    ) -> FloatArray:
        """F of the step, (N,)."""
        values, over = self._of(observations, prompt_ids)
        term = self.gamma * np.where(terminations, 0.0, values) - self._values
        term[self._over] = 0.0  # such a row did not act: it waits, or its next episode has just begun
        self._values, self._over = values, over
        return term

    def _of(self, observations: IntArray, prompt_ids: IntArray) -> tuple[FloatArray, BoolArray]:
        """Phi of n observations, (n,), 0 where an episode has ended, and where that is, (n,)."""
        over, values = self._task.mdp.ended(observations), np.zeros(len(observations))
        rows = np.flatnonzero(~over)
        if len(rows):
            task, asked = self._task, observations[rows]
            lengths, every = task.mdp.completion_lengths(asked), np.ones(len(rows), bool)
            parts = task.mdp, task.tokenizer, task.prompts, asked, prompt_ids[rows], rows, lengths, every
            values[rows] = self._potential.evaluate(Generations(*parts)).rewards
        return values, over


def make_potential(potential: Any) -> Scorer:
    """The scorer that a potential stands for; see `PotentialShaping`."""
    if isinstance(potential, str) and ":" in potential:
        potential = import_string(potential, what="potential")
    if callable(potential) and not isinstance(potential, Scorer) and not inspect.isclass(potential):
        return OfObservations(potential)
    scorer = make_scorer(potential)
    if scorer.per_token:
        raise ValueError(
            f"the potential {scorer.name!r} pays per token: it values the newest token, and a potential is the value "
            "of the text so far"
        )
    return scorer


class OfObservations(Scorer):
    """A scorer that is a function of observations."""

    def __init__(self, function: Callable[[IntArray], Any]):
        self.name, self._function = getattr(function, "__name__", type(function).__name__), function

    def score(self, generations: Generations) -> Any:
        """(n,) what the function gives."""
        return self._function(generations.observations)
