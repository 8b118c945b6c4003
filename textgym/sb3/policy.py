"""A causal language model as an SB3 actor-critic policy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from textgym.language_models import load_model, load_tokenizer
from textgym.language_models.decoder import LockstepDecoder
from textgym.language_models.forward import check_vocabulary, episode_outputs
from textgym.mdp import TextMDP, model_inputs
from textgym.tokenizers import from_pretrained


class TokenPolicy(ActorCriticPolicy):
    """The next-token distribution of a causal LM, with the env's masks and a value head that starts at zero.

    Weights are float32; `dtype="bfloat16"` runs the forward passes under autocast. Dropout is off, in training too.
    Sampling decodes with a key-value cache, training runs whole episodes in one forward pass, and both give the same
    log-probabilities.

    SB3 gives a policy its spaces only, so what it must know of the env comes through
    `policy_kwargs=TokenPolicy.kwargs_for(env, model="tiny")`.

    Args:
        observation_space: `Box(0, V, (P + T,), int64)`.
        action_space: `Discrete(V)`.
        lr_schedule: learning rate, a function of the remaining progress.
        mdp: the env's MDP.
        model: what `textgym.language_models.load_model` accepts; a loaded model is used as it is, not copied.
        dtype: `"bfloat16"` for autocast, None for float32.
        optimizer_class: Adam by default.
        optimizer_kwargs: its arguments, the learning rate apart.
        use_sde: refused; state-dependent noise is for continuous actions.

    Raises:
        ValueError: the model embeds fewer tokens than the vocabulary has, or no parameter is trainable.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        mdp: TextMDP,
        model: Any = "tiny",
        dtype: str | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ):
        if use_sde:
            raise ValueError("use_sde is for continuous actions; tokens are discrete")
        if dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"dtype is {dtype!r}; accepted are 'float32', 'bfloat16' (autocast) and None (float32)")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            ortho_init=False,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs or {},
        )
        self.mdp = mdp
        self.dtype = dtype or "float32"
        self.model = load_model(model).float()
        check_vocabulary(self.model, mdp)
        self.value_net = nn.Linear(self.model.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        self._allowed: torch.Tensor
        self._is_eos: torch.Tensor
        self.register_buffer("_allowed", torch.from_numpy(mdp.allowed), persistent=False)
        self.register_buffer("_is_eos", torch.from_numpy(mdp.is_eos), persistent=False)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ValueError("the model has no trainable parameter (requires_grad is False everywhere)")
        trainable = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(trainable, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self._decoder = LockstepDecoder(self.model, mdp)
        self._decoded_version = -1

    @staticmethod
    def kwargs_for(env: Any, model: Any = None, dtype: str | None = None) -> dict[str, Any]:
        """`policy_kwargs` for an env: a TextGym env, a vector env, or an SB3 `VecEnv` of them.

        Args:
            env: wrapped or not.
            model: None means `"tiny"`.
            dtype: see the class.

        Raises:
            ValueError: not a TextGym env, or a named model whose vocabulary is not the env's.
        """
        try:
            mdp, tokenizer = (_attribute(env, name) for name in ("mdp", "tokenizer"))
        except AttributeError as error:
            raise ValueError(f"{env} is not a TextGym env: it has no TextMDP") from error
        model = "tiny" if model is None else model
        if isinstance(model, str):
            theirs = from_pretrained(load_tokenizer(model)).backend.get_vocab()
            if theirs != tokenizer.backend.get_vocab():
                raise ValueError(
                    f"the env's tokenizer ({mdp.vocab_size} tokens) is not that of model {model!r} ({len(theirs)} "
                    f"tokens); make the env with tokenizer={model!r}, or pass a loaded model that fits"
                )
        return {"mdp": mdp, "model": model, "dtype": dtype}

    def _build(self, lr_schedule: Schedule) -> None:
        """Nothing: the constructor builds the language model in place of SB3's networks."""

    def train(self, mode: bool = True) -> TokenPolicy:
        """Set the training flag; the language model stays in eval mode, so that dropout is off."""
        super().train(mode)
        self.model.eval()
        self._decoder.reset()
        return self

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of every forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def masked(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits with forbidden tokens at the lowest float: (..., V) after `lengths` (...) completion tokens."""
        if not self.mdp.restricted:
            return logits
        too_short = (lengths < self.mdp.min_new_tokens).unsqueeze(-1)
        allowed = self._allowed & ~(too_short & self._is_eos)
        return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)

    def get_distribution(self, obs: PyTorchObs) -> CategoricalDistribution:  # type: ignore[override]
        """The distribution of the next token, (N, V), by cached decoding; no gradient."""
        return self._decode(obs)[0]

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose tokens by cached decoding, without gradient.

        Returns:
            actions (N,) int64, values (N, 1), log-probabilities (N,).
        """
        distribution, values = self._decode(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        return self.forward(observation, deterministic)[0]  # type: ignore[arg-type]

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Values of states, (N, 1), by cached decoding; no gradient."""
        return self._decode(obs)[1]

    @torch.no_grad()
    def _decode(self, obs: PyTorchObs) -> tuple[CategoricalDistribution, torch.Tensor]:
        observations = obs.long()  # type: ignore[union-attr]
        version = sum(p._version for p in self.model.parameters())  # in-place updates of any kind count up
        if version != self._decoded_version:
            self._decoder.reset()
            self._decoded_version = version
        with self.autocast():
            logits, hidden = self._decoder.logits_and_hidden(observations)
        lengths = (observations[:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).sum(-1)
        distribution = CategoricalDistribution(self.mdp.vocab_size).proba_distribution(self.masked(logits, lengths))
        assert hidden is not None
        return distribution, self.value_net(hidden)

    def evaluate_actions(  # type: ignore[override]
        self, obs: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values, log-probabilities and entropies, with gradient.

        Args:
            obs: (B, P + T) int64; states (stock SB3 minibatches), or last observations of whole episodes.
            actions: (B,) the token chosen in each state; or (B, T) the completions of whole episodes, padded.

        Returns:
            values (B, 1), log-probabilities (B,) and entropies (B,) of states; each (B, T) for whole episodes, 0 at
            padding.
        """
        if actions.ndim == 2:
            return self.evaluate_episodes(obs, actions)
        lengths = (obs[:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).sum(-1)
        with self.autocast():
            output = self.model(
                **model_inputs(obs.long(), self.mdp.pad_id),
                use_cache=False,
                logits_to_keep=1,
                output_hidden_states=True,
            )
        logits = self.masked(output.logits[:, -1, : self.mdp.vocab_size].float(), lengths)
        distribution = CategoricalDistribution(self.mdp.vocab_size).proba_distribution(logits)
        values = self.value_net(output.hidden_states[-1][:, -1].float())
        return values, distribution.log_prob(actions), distribution.entropy()

    def evaluate_episodes(
        self, rows: torch.Tensor, actions: torch.Tensor, model: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`evaluate_actions` for whole episodes, in one forward pass.

        Args:
            rows: (B, P + T) int64 last observations.
            actions: (B, T) int64 completions, padded.
            model: another causal LM in place of the policy's, such as the reference; its values mean nothing.

        Returns:
            values, log-probabilities and entropies, each (B, T) float32, 0 at padding.
        """
        real = actions != self.mdp.pad_id  # (B, T)
        width = int(real.sum(-1).max())
        with self.autocast():
            output = episode_outputs(model or self.model, self.mdp, rows, width, output_hidden_states=True)
        steps = torch.arange(width, device=rows.device)
        logits = self.masked(output.logits[..., : self.mdp.vocab_size].float(), steps)  # (B, W, V)
        chosen = actions[:, :width].masked_fill(~real[:, :width], 0)
        distribution = torch.distributions.Categorical(logits=logits)
        values = self.value_net(output.hidden_states[-1][:, -width:].float()).squeeze(-1)
        terms = values, distribution.log_prob(chosen), distribution.entropy()  # (B, W) each
        padding = (0, actions.shape[1] - width)
        return tuple(  # type: ignore[return-value]
            nn.functional.pad(term.masked_fill(~real[:, :width], 0.0), padding) for term in terms
        )


def _attribute(env: Any, name: str) -> Any:
    """An attribute of an env of any of the kinds that `kwargs_for` accepts."""
    return env.get_attr(name)[0] if isinstance(env, VecEnv) else getattr(env.unwrapped, name)
