"""What training a language model on whole episodes needs, whichever RL library drives it; none is imported here."""

from textgym.importing import require

for _package in ("torch", "transformers"):
    require(_package, "agents")

from textgym.language_models.log_probs import TokenTerms
from textgym.language_models.token_model import TokenModel
from textgym.training.actors import Actor, Alternating, ModelActor
from textgym.training.episodes import Episodes
from textgym.training.reference import Reference
from textgym.training.updates import accumulate_gradients, apply_gradients

__all__ = [
    "Actor",
    "Alternating",
    "Episodes",
    "ModelActor",
    "Reference",
    "TokenModel",
    "TokenTerms",
    "accumulate_gradients",
    "apply_gradients",
]
