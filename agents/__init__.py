"""Baseline agents, each an algorithm of stable-baselines3's kind on `textgym.sb3`."""

from agents.distribution_matching import DistributionMatching
from agents.dual_ascent import DualAscent
from agents.ppo import PPO
from agents.q_learning import QLearning
from agents.reinforce import GRPO, REINFORCE, RLOO
from agents.soft_q_learning import SoftQLearning

__all__ = [
    "GRPO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "DistributionMatching",
    "DualAscent",
    "QLearning",
    "SoftQLearning",
]
