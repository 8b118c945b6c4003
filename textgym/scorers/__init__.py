"""Scorers: what an env pays for a finished text, or for each token.

Importing this package imports neither torch, transformers nor vaderSentiment; a scorer that needs one of them imports
it when it is built.
"""

from textgym.scorers.base import Generations, Scorer, ScorerError, Scores
from textgym.scorers.composition import Threshold, WeightedSum
from textgym.scorers.functions import FunctionScorer
from textgym.scorers.log_prob import LogProb
from textgym.scorers.registry import make_scorer
from textgym.scorers.reward_model import RewardModel
from textgym.scorers.sentiment import Sentiment
from textgym.scorers.text import Keyword, Length, MoreWords, Regex, TokenCounts

__all__ = [
    "FunctionScorer",
    "Generations",
    "Keyword",
    "Length",
    "LogProb",
    "MoreWords",
    "Regex",
    "RewardModel",
    "Scorer",
    "ScorerError",
    "Scores",
    "Sentiment",
    "Threshold",
    "TokenCounts",
    "WeightedSum",
    "make_scorer",
]
