"""The env classes: one episode at a time, and many in one array."""

from textgym.envs.text_generation import TextGenerationEnv
from textgym.envs.text_generation_vector import TextGenerationVectorEnv
from textgym.envs.toy import TextGenToyEnv, TextGenToyVectorEnv

__all__ = ["TextGenToyEnv", "TextGenToyVectorEnv", "TextGenerationEnv", "TextGenerationVectorEnv"]
