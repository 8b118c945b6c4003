"""What any stable-baselines3 user needs to train a language model on a TextGym env."""

try:
    import stable_baselines3  # noqa: F401
    import transformers  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'textgym.sb3 needs {error.name}: pip install "textgym[agents]"', name=error.name
    ) from error

from textgym.sb3.buffer import EpisodeRolloutBuffer, Episodes
from textgym.sb3.episodic import EpisodicAlgorithm
from textgym.sb3.features import TokenFeatures
from textgym.sb3.policy import TokenPolicy
from textgym.sb3.vec_env import TextVecEnv

__all__ = [
    "EpisodeRolloutBuffer",
    "Episodes",
    "EpisodicAlgorithm",
    "TextVecEnv",
    "TokenFeatures",
    "TokenPolicy",
]
