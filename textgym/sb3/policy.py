"""A causal language model as an SB3 actor-critic policy: a shell over `TokenModel`."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import get_device

from textgym.arguments import arguments_of
from textgym.language_models.adapters import peft_config
from textgym.language_models.token_model import TokenModel
from textgym.sb3.env_checks import check_observations
from textgym.sb3.env_model import attribute, check_vocabulary, default_model
from textgym.sb3.model_files import load_policy, save_policy

OF_THE_MODEL = ("mdp", "model", "peft", "lora")
POLICY_ARGUMENTS = tuple(name for name in arguments_of(TokenModel) if name not in (*OF_THE_MODEL, "dtype"))
"""What agents hand to `TokenModel` in their `policy_kwargs`; the rest are arguments of their own."""


class TokenPolicy(ActorCriticPolicy):
    """The next-token distribution of a causal LM under the env's masks, and a value head that starts at zero.

    Trained weights are float32; `dtype="bfloat16"` runs the forward passes under autocast. Dropout is off, in training
    too. Sampling decodes with a key-value cache, training runs whole episodes in one forward pass, and both give the
    same log-probabilities, because temperature, top-k and top-p are part of the distribution.

    SB3 gives a policy its spaces only, so what it must know of the env comes through
    `policy_kwargs=TokenPolicy.kwargs_for(env, model="tiny")`.

    Attributes:
        token_model: the `TokenModel` that does all of this; what is not SB3's stands there.
        arguments: those of its constructor that are JSON.

    Args:
        observation_space: `Box(0, V, (P + T,), int64)`.
        action_space: `Discrete(V)`.
        lr_schedule: learning rate, a function of the remaining progress.
        optimizer_class: what takes the gradient steps.
        optimizer_kwargs: the optimizer's arguments, apart from the learning rate.
        use_sde: refused; state-dependent noise is for continuous actions.
        **kwargs: `mdp`, the env's MDP, and the other arguments of `TokenModel`.

    Raises:
        ValueError: the model cannot play the MDP (`check_model`), no parameter is trainable, or a value that an
            annotation excludes.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        **kwargs: Any,
    ):
        if use_sde:
            raise ValueError("use_sde is for continuous actions; tokens are discrete")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            ortho_init=False,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs or {},
        )
        self.arguments = {name: value for name, value in kwargs.items() if name not in OF_THE_MODEL}
        self.token_model = TokenModel(**kwargs)
        trainable = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(trainable, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self.token_model.follow(self.optimizer)

    @staticmethod
    def kwargs_for(
        env: Any, model: Any = None, peft: Any = None, lora: Any = None, dtype: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """`policy_kwargs` for an env: a TextGym env, a vector env, or an SB3 `VecEnv` of them.

        Args:
            env: wrapped or not.
            model: None means `default_model(env)`.
            peft: see `TokenModel`.
            lora: see `TokenModel`; its configuration becomes `peft`.
            dtype: see `TokenModel`.
            **kwargs: the class's other arguments.

        Raises:
            ValueError: not a TextGym env, one with a wrapper that changes observations or actions, a named model whose
                vocabulary is not the env's, or adapters that cannot be trained.
        """
        try:
            mdp, tokenizer = (attribute(env, name) for name in ("mdp", "tokenizer"))
        except AttributeError as error:
            raise ValueError(f"{env} is not a TextGym env: it has no TextMDP") from error
        check_observations(env, mdp)
        if model is None:
            model = default_model(env)
        if isinstance(model, str):
            check_vocabulary(tokenizer, model)
        return {"mdp": mdp, "model": model, "peft": peft_config(peft, lora), "dtype": dtype, **kwargs}

    def _build(self, lr_schedule: Schedule) -> None:
        """Nothing: the constructor builds the language model in place of SB3's networks."""

    @property
    def model(self) -> Any:
        """The causal language model."""
        return self.token_model.model

    def get_distribution(self, obs: PyTorchObs) -> CategoricalDistribution:  # type: ignore[override]
        """The distribution of the next token, (N, V), by cached decoding; no gradient; uniform for ended rows."""
        log_probs, _, live = self.token_model.decode(obs)  # type: ignore[arg-type]
        every = log_probs.new_zeros(len(live), self.action_space.n)  # type: ignore[attr-defined]
        every[live] = log_probs
        return CategoricalDistribution(every.shape[1]).proba_distribution(every)

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions (N,), values (N, 1) and log-probabilities (N,); see `TokenModel.forward`."""
        return self.token_model(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        return self.forward(observation, deterministic)[0]  # type: ignore[arg-type]

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Values of states, (N, 1), by cached decoding; no gradient; 0 for rows that have ended."""
        return self.token_model.decode(obs)[1]  # type: ignore[arg-type]

    def evaluate_actions(  # type: ignore[override]
        self, obs: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values, log-probabilities and entropies, with gradient, in the order that SB3's algorithms expect.

        Args:
            obs: (B, P + T) int64; states (stock SB3 minibatches), or last observations of whole episodes.
            actions: (B,) the token chosen in each state; or (B, T) the completions of whole episodes, padded.

        Returns:
            values (B, 1), log-probabilities (B,) and entropies (B,) of states; each (B, T) for whole episodes, 0 at
            padding.
        """
        if actions.ndim == 2:
            terms = self.token_model.evaluate_episodes(obs, actions)
            return terms.values, terms.log_probs, terms.entropies
        terms = self.token_model.evaluate_states(obs, actions)
        return terms.values[:, None], terms.log_probs, terms.entropies

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's decoders follow the copy's optimizer; optimizers do not copy their hooks."""
        super().__setstate__(state)
        self.token_model.follow(self.optimizer)

    def save(self, path: Any) -> None:
        """Write a folder of safetensors and JSON, which is also a transformers model: all but the optimizer.

        Args:
            path: the folder; a policy or checkpoint that is there is replaced.

        Raises:
            FileExistsError: something else is there.
            OSError: it could not be written.
        """
        save_policy(self, path)

    @classmethod
    def load(cls, path: Any, device: torch.device | str = "auto") -> TokenPolicy:  # type: ignore[override]
        """Read what `save` wrote, with a new optimizer; none of its code is executed.

        Args:
            path: the folder.
            device: where the policy goes.

        Raises:
            FileNotFoundError: no policy is there.
            CheckpointError: a file is damaged or is not a policy's.
        """
        return load_policy(cls, path, get_device(device))
