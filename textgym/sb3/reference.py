"""The frozen reference model a, from which an agent's policy is kept near."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from textgym.language_models import load_model
from textgym.language_models.forward import check_model
from textgym.language_models.precision import lower_frozen_matrices
from textgym.sb3.buffer import Episodes
from textgym.sb3.collection import scores_under
from textgym.sb3.players import ModelPlayer
from textgym.sb3.policy import TokenPolicy


class Reference:
    """A model that is never trained.

    Attributes:
        model: the causal LM; None where it is the policy's own model with its adapters off.

    Args:
        policy: the policy that is trained.
        source: what `load_model` accepts; None is a copy of the policy's model.
        given: whether the user named it; otherwise a policy with adapters is its own reference.

    Raises:
        ValueError: the model is the policy's own, or does not fit the env.
    """

    def __init__(self, policy: TokenPolicy, source: Any, given: bool):
        self.model: Any = None
        if policy.lora is not None and not given:
            return
        self.model = copy.deepcopy(policy.model) if source is None else load_model(source)
        if self.model is policy.model:
            raise ValueError("the reference is the very model that is trained; pass a copy, or leave reference out")
        check_model(self.model, policy.mdp)
        self.model.to(policy.device).requires_grad_(False).eval()
        if policy.dtype == "bfloat16":
            lower_frozen_matrices(self.model)

    def scores(
        self, policy: TokenPolicy, episodes: Episodes, micro_batch_size: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of the episodes' tokens, and log-normalizers, each (E, T) float32, 0 at padding."""
        with self.adapters(policy):
            return scores_under(policy, self.model_of(policy), episodes, micro_batch_size)

    def player(self, policy: TokenPolicy) -> ModelPlayer:
        """What samples from the reference."""
        return ModelPlayer(policy, self.model_of(policy), lambda: self.adapters(policy))

    def model_of(self, policy: TokenPolicy) -> Any:
        """The model, also where it is the policy's own; to be run under `adapters`."""
        return policy.model if self.model is None else self.model

    def adapters(self, policy: TokenPolicy) -> AbstractContextManager[None]:
        """The context in which the model is the reference."""
        return policy.adapters_off() if self.model is None else nullcontext()
