"""The frozen reference model a, from which an agent's policy is kept near."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from textgym.language_models.forward import check_model
from textgym.language_models.loader import load_model
from textgym.language_models.precision import lower_frozen_matrices
from textgym.language_models.token_model import TokenModel
from textgym.training.actors import ModelActor
from textgym.training.episodes import Episodes
from textgym.training.terms import log_probs_under, with_training_terms


class Reference:
    """A model that is never trained.

    Attributes:
        model: the causal LM; None where it is the policy's own model with its adapters off.

    Args:
        token_model: the policy that is trained; its masks and temperature are the reference's, too.
        source: what `load_model` accepts; None is a copy of the policy's model.
        given: whether the user named it; otherwise a policy with adapters is its own reference.

    Raises:
        ValueError: the model is the policy's own, or does not fit the env.
    """

    def __init__(self, token_model: TokenModel, source: Any, given: bool):
        self._token_model = token_model
        self.model: Any = None
        if token_model.peft is not None and not given:
            return
        self.model = copy.deepcopy(token_model.model) if source is None else load_model(source)
        if self.model is token_model.model:
            raise ValueError("the reference is the very model that is trained; pass a copy, or leave reference out")
        check_model(self.model, token_model.mdp)
        self.model.to(token_model.device).requires_grad_(False).eval()
        if token_model.dtype == "bfloat16":
            lower_frozen_matrices(self.model)

    def log_probs(self, episodes: Episodes, micro_batch_size: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of the episodes' tokens, and log-normalizers, each (E, T) float32, 0 at padding.

        Args:
            episodes: E finished episodes.
            micro_batch_size: episodes per forward pass at most.
        """
        with self._active():
            return log_probs_under(self._token_model, self._causal_lm, episodes, micro_batch_size)

    def actor(self) -> ModelActor:
        """What samples from the reference."""
        return ModelActor(self._token_model, self._causal_lm, self._active)

    @contextmanager
    def running(self) -> Iterator[Any]:
        """The causal LM, in the context in which it is the reference."""
        with self._active():
            yield self._causal_lm

    @property
    def _causal_lm(self) -> Any:
        """The model, also where it is the policy's own; to be run while it is `_active`."""
        return self._token_model.model if self.model is None else self.model

    def _active(self) -> AbstractContextManager[None]:
        """The context in which the model is the reference."""
        return self._token_model.adapters_off() if self.model is None else nullcontext()


def with_log_probs(
    token_model: TokenModel, reference: Reference | None, episodes: Episodes, micro_batch_size: int | None
) -> Episodes:
    """Add the reference's log-probabilities; in bfloat16, take the policy's from the training forward as well.

    Args:
        token_model: the policy that sampled the episodes.
        reference: None leaves its log-probabilities 0.
        episodes: E finished episodes.
        micro_batch_size: episodes per forward pass at most.
    """
    if reference is not None:
        log_probs, log_normalizers = reference.log_probs(episodes, micro_batch_size)
        episodes = episodes.replace(reference_log_probs=log_probs, reference_log_normalizers=log_normalizers)
    if token_model.dtype == "float32":
        return episodes
    return with_training_terms(token_model, episodes, micro_batch_size)
