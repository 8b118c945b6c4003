"""The wrappers of vector envs under their plain names, as in `gymnasium.wrappers.vector`."""

from textgym.wrappers.constant_info import VectorConstantInfo as ConstantInfo
from textgym.wrappers.counterfactual_credit import VectorCounterfactualCredit as CounterfactualCredit
from textgym.wrappers.discrete_contexts import VectorDiscreteContexts as DiscreteContexts
from textgym.wrappers.embedding_actions import VectorEmbeddingActions as EmbeddingActions
from textgym.wrappers.potential_shaping import VectorPotentialShaping as PotentialShaping
from textgym.wrappers.reference_reward import VectorReferenceReward as ReferenceReward

__all__ = [
    "ConstantInfo",
    "CounterfactualCredit",
    "DiscreteContexts",
    "EmbeddingActions",
    "PotentialShaping",
    "ReferenceReward",
]
