"""Wrappers of TextGym's envs: of observations, of rewards, of actions and of `info`; see docs/wrappers.md.

Each is there twice: for the single env, and, with `Vector` before its name, for the native vector env in any of its
autoreset modes. `textgym.wrappers.vector` has the latter under the plain names, as `gymnasium.wrappers.vector` does.
Importing them imports no torch; those that run a language model import it when they are made.
"""

from textgym.wrappers.constant_info import ConstantInfo, VectorConstantInfo
from textgym.wrappers.counterfactual_credit import (
    CounterfactualCredit,
    VectorCounterfactualCredit,
    counterfactual_credit,
)
from textgym.wrappers.discrete_contexts import DiscreteContexts, VectorDiscreteContexts
from textgym.wrappers.embedding_actions import EmbeddingActions, VectorEmbeddingActions
from textgym.wrappers.potential_shaping import PotentialShaping, VectorPotentialShaping
from textgym.wrappers.reference_reward import ReferenceReward, VectorReferenceReward

from textgym.wrappers import vector  # isort: skip

__all__ = [
    "ConstantInfo",
    "CounterfactualCredit",
    "DiscreteContexts",
    "EmbeddingActions",
    "PotentialShaping",
    "ReferenceReward",
    "VectorConstantInfo",
    "VectorCounterfactualCredit",
    "VectorDiscreteContexts",
    "VectorEmbeddingActions",
    "VectorPotentialShaping",
    "VectorReferenceReward",
    "counterfactual_credit",
    "vector",
]
