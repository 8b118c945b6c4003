"""A reward for staying near a reference model, which with an entropy bonus becomes the KL penalty of RLHF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from textgym.arguments import NonNegative, check_argument
from textgym.importing import require
from textgym.mdp import BoolArray, IntArray, TextMDP
from textgym.scorers.base import FloatArray
from textgym.wrappers.episodes import task_of
from textgym.wrappers.reward_terms import RewardTerm, TermWrapper, VectorTermWrapper

if TYPE_CHECKING:
    from textgym.wrappers.reference import FrozenReference


class ReferenceReward(TermWrapper):
    """Adds beta log a(x_t | s_t), the log-probability of the token under a reference model, to every reward.

    It is the part of a KL penalty that an env can pay, as the other part, -beta log pi, is the agent's:

        E_pi[sum_t r_t + beta log a(x_t | s_t)] + beta E_pi[sum_t H(pi(. | s_t))] = E_pi[sum_t r_t] - beta KL(pi || a),

    with the KL of whole completions, by its chain rule. So an agent that maximises return plus beta times the entropies
    of all its states (maximum-entropy RL: soft Q-learning with temperature beta) has the optimum of RLHF, p(x)
    proportional to a(x) exp(r(x) / beta). Two things are no such agent: one without entropy, which seeks the likeliest
    well-paid text; and one whose entropy bonus is in its loss alone (A2C's and PPO's `ent_coef`), because it does not
    count the entropy of later states. Language-model agents of this package need no wrapper: their `kl_coef` is exact.

    The reference is at temperature 1 and under the env's masks. At the end `info["unshaped_return"]` is the episode's
    undiscounted return without the log-probabilities.

    Args:
        env: a TextGym env.
        reference: anything that `textgym.language_models.load_model` accepts; its tokens are the env's. A loaded model
            stays where it is, and must not be trained.
        beta: reward per nat, at least 0.

    Raises:
        ValueError: another env, there is no such model, it does not fit the env, or beta is negative; when stepping,
            a token that has no probability under the reference.
        ImportError: torch or transformers is missing.
    """

    def __init__(self, env: gym.Env[Any, Any], reference: Any, beta: float):
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, reference=reference, beta=beta)
        super().__init__(env, ReferenceLogProb(task_of(env).mdp, reference, beta))


class VectorReferenceReward(VectorTermWrapper):
    """`ReferenceReward` for the native vector env: one forward pass of the reference a step, with a cache.

    `unshaped_return`, (N,) float64 with its mask, is in `info["final_info"]` under SameStep, and in `info` otherwise.

    Args:
        env: a TextGym vector env, of `gym.make_vec`.
        reference: see `ReferenceReward`.
        beta: see `ReferenceReward`.

    Raises:
        ValueError: as `ReferenceReward`.
        ImportError: as `ReferenceReward`.
    """

    def __init__(self, env: VectorEnv, reference: Any, beta: float):
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, reference=reference, beta=beta)
        super().__init__(env, ReferenceLogProb(task_of(env).mdp, reference, beta))


class ReferenceLogProb(RewardTerm):
    """The term beta log a(x_t | s_t) of N rows."""

    def __init__(self, mdp: TextMDP, reference: Any, beta: float):
        check_argument("beta", beta, NonNegative)
        self.beta, self._reference = beta, make_reference(reference, mdp)
        self._contexts: IntArray  # (N, P + T) the last observations, which the next tokens are written behind

    def reset(self, observations: IntArray, prompt_ids: IntArray, begun: BoolArray) -> None:
        """Keep the first contexts."""
        self._contexts = observations.copy()

    def step(
        self, actions: IntArray, observations: IntArray, prompt_ids: IntArray, terminations: BoolArray
    ) -> FloatArray:
        """The term of the step, (N,)."""
        log_probs = self._reference.log_probs_of(self._contexts, actions)
        self._contexts = observations.copy()
        return self.beta * log_probs


def make_reference(model: Any, mdp: TextMDP) -> FrozenReference:
    """A `FrozenReference`, importing torch only now; an ImportError names the extra where torch is missing."""
    require("torch", "agents")
    from textgym.wrappers.reference import FrozenReference

    return FrozenReference(model, mdp)
