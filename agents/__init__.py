"""Baseline agents, each an algorithm of stable-baselines3's kind on `textgym.sb3`."""

from agents.contrastive_lm import ContrastiveLM
from agents.distribution_matching import DistributionMatching
from agents.dpo import DPO, OnlineDPO
from agents.dual_ascent import DualAscent
from agents.ppo import PPO
from agents.q_learning import QLearning
from agents.reinforce import GRPO, REINFORCE, RLOO
from agents.reward_model_trainer import RewardModelTrainer
from agents.sft import SFT
from agents.soft_q_learning import SoftQLearning

__all__ = [
    "DPO",
    "GRPO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "SFT",
    "ContrastiveLM",
    "DistributionMatching",
    "DualAscent",
    "OnlineDPO",
    "QLearning",
    "RewardModelTrainer",
    "SoftQLearning",
]
