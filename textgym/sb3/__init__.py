"""What any stable-baselines3 user needs to train a language model on a TextGym env."""

from textgym.importing import require

for _package in ("torch", "transformers", "stable_baselines3"):
    require(_package, "agents")

from textgym.sb3.buffer import EpisodeRolloutBuffer
from textgym.sb3.episodic import EpisodicAlgorithm
from textgym.sb3.features import TokenFeatures
from textgym.sb3.policy import TokenPolicy
from textgym.sb3.vec_env import TextVecEnv

__all__ = [
    "EpisodeRolloutBuffer",
    "EpisodicAlgorithm",
    "TextVecEnv",
    "TokenFeatures",
    "TokenPolicy",
]
