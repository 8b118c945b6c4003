"""What can be evaluated: an agent, or a language model in an env, which needs no agent."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from textgym.envs.task import TextTask
from textgym.language_models.token_model import TokenModel
from textgym.training.episodes import Episodes
from textgym.training.reference import Reference, with_log_probs
from textgym.training.rollouts import collect_episodes


class Policy(Protocol):
    """A language model in an env, such as `ModelPolicy`, or an agent of `textgym.sb3`."""

    micro_batch_size: int | None
    """Episodes per forward pass at most; None sets no bound."""

    n_envs: int
    """Episodes side by side."""
    reference: Reference | None
    """What KL is measured to."""

    @property
    def token_model(self) -> TokenModel:
        """The model with its distribution."""

    @property
    def task(self) -> TextTask:
        """The env's tokenizer, prompts and scorer."""

    def sample_episodes(self, episodes: int) -> Episodes:
        """Fresh episodes, with the log-probabilities of the reference if there is one."""


class ModelPolicy:
    """A language model that is not trained, in a Gymnasium vector env.

    Args:
        env: what `gym.make_vec` returned for a TextGym id, in autoreset mode `"Disabled"`.
        token_model: made for the env's MDP.
        reference: what KL is measured to, a `Reference` or anything that `load_model` accepts; by default a copy of the
            model.
        micro_batch_size: episodes per forward pass at most; None sets no bound.
        seed: of the env and of torch; None leaves both as they are.

    Raises:
        ValueError: the token model was made for another MDP, or the reference does not fit.
    """

    def __init__(
        self,
        env: Any,
        token_model: TokenModel,
        reference: Any = None,
        *,
        micro_batch_size: int | None = None,
        seed: int | None = None,
    ):
        if token_model.mdp != env.unwrapped.mdp:
            raise ValueError(f"the model was made for another MDP than the env's: {token_model.mdp}")
        self.env, self.n_envs, self.micro_batch_size = env, env.num_envs, micro_batch_size
        self.token_model = token_model
        if not isinstance(reference, Reference):
            reference = Reference(token_model, reference, given=reference is not None)
        self.reference: Reference | None = reference
        self._seed = seed
        if seed is not None:
            torch.manual_seed(seed)

    @property
    def task(self) -> TextTask:
        """The env's tokenizer, prompts and scorer."""
        return self.env.unwrapped.task

    def sample_episodes(self, episodes: int) -> Episodes:
        """Fresh episodes with the reference's log-probabilities.

        Args:
            episodes: how many; a multiple of the number of rows of the env.

        Raises:
            ValueError: it is no multiple.
        """
        if episodes < 1 or episodes % self.n_envs:
            raise ValueError(f"episodes={episodes} is not a multiple of the number of envs, {self.n_envs}")
        rounds, seed, self._seed = episodes // self.n_envs, self._seed, None
        drawn = collect_episodes(self.env, self.token_model, rounds, seed)
        return with_log_probs(self.token_model, self.reference, drawn, self.micro_batch_size)
