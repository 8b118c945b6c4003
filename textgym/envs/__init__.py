"""The env classes: one episode at a time, and many in one array."""

from textgym.envs.text_generation import TextGenerationEnv
from textgym.envs.text_generation_vector import TextGenerationVectorEnv

__all__ = ["TextGenerationEnv", "TextGenerationVectorEnv"]
