"""A causal language model as an SB3 actor-critic policy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from textgym.language_models import load_model
from textgym.language_models.adapters import add_lora
from textgym.language_models.decoder import check_decoding
from textgym.language_models.forward import check_model, episode_hidden, logits_of, memory_advice, state_hidden
from textgym.language_models.precision import lower_frozen_matrices
from textgym.mdp import TextMDP
from textgym.sb3.decoding import TrainedDecoders
from textgym.sb3.distribution import TokenDistribution, choose
from textgym.sb3.env_model import attribute, check_vocabulary, default_model
from textgym.sb3.scoring import by_step, score_tokens

ValueFunction = Literal["shared", "separate"]


class TokenPolicy(ActorCriticPolicy):
    """The next-token distribution of a causal LM under the env's masks, and a value head that starts at zero.

    Trained weights are float32; `dtype="bfloat16"` runs the forward passes under autocast. Dropout is off, in training
    too. Sampling decodes with a key-value cache, training runs whole episodes in one forward pass, and both give the
    same log-probabilities, because temperature, top-k and top-p are part of the distribution.

    SB3 gives a policy its spaces only, so what it must know of the env comes through
    `policy_kwargs=TokenPolicy.kwargs_for(env, model="tiny")`.

    Args:
        observation_space: `Box(0, V, (P + T,), int64)`.
        action_space: `Discrete(V)`.
        lr_schedule: learning rate, a function of the remaining progress.
        mdp: the env's MDP.
        model: what `textgym.language_models.load_model` accepts; a loaded model is used as it is, not copied.
        lora: arguments of `peft.LoraConfig`, or one; only adapters and the value head are trained then.
        dtype: `"bfloat16"` for autocast, None for float32.
        value_function: `"shared"`, a head on the language model's last hidden state, or `"separate"`, a head on a copy
            of the model's trunk, so that value gradients leave the policy alone.
        temperature: of the distribution.
        top_k: the distribution's k most likely tokens; None keeps all.
        top_p: the distribution's nucleus; None keeps all.
        gradient_checkpointing: recompute activations in the backward pass, for less memory and a third more time.
        optimizer_class: Adam by default.
        optimizer_kwargs: its arguments, the learning rate apart.
        use_sde: refused; state-dependent noise is for continuous actions.

    Raises:
        ValueError: the model cannot play the MDP (`check_model`), no parameter is trainable, or an argument is not
            among those above.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        mdp: TextMDP,
        model: Any = "tiny",
        lora: Any = None,
        dtype: str | None = None,
        value_function: ValueFunction = "shared",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        gradient_checkpointing: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ):
        if use_sde:
            raise ValueError("use_sde is for continuous actions; tokens are discrete")
        if dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"dtype is {dtype!r}; accepted are 'float32', 'bfloat16' (autocast) and None (float32)")
        if value_function not in get_args(ValueFunction):
            raise ValueError(f"value_function is {value_function!r}; accepted are {list(get_args(ValueFunction))}")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            ortho_init=False,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs or {},
        )
        self.mdp, self.lora, self.dtype = mdp, lora, dtype or "float32"
        self.distribution = TokenDistribution(mdp, temperature, top_k, top_p)
        self.model = load_model(model).float()
        check_model(self.model, mdp)
        check_decoding(self.model, mdp)
        if lora is not None:
            add_lora(self.model, lora)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ValueError("the model has no trainable parameter (requires_grad is False everywhere)")
        self.value_trunk = copy.deepcopy(self.model.base_model) if value_function == "separate" else None
        self.value_net = nn.Linear(self.model.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        if self.dtype == "bfloat16":
            for trunk in self._trunks():
                lower_frozen_matrices(trunk)
        if gradient_checkpointing:
            for trunk in self._trunks():
                trunk.activation_checkpointing_enable({"use_reentrant": False})
        trainable = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(trainable, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self._decoders = TrainedDecoders(self._trunks(), mdp, self.optimizer, autocast=self.dtype == "bfloat16")

    @staticmethod
    def kwargs_for(
        env: Any, model: Any = None, lora: Any = None, dtype: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """`policy_kwargs` for an env: a TextGym env, a vector env, or an SB3 `VecEnv` of them.

        Args:
            env: wrapped or not.
            model: None means `default_model(env)`.
            lora: see the class.
            dtype: see the class.
            **kwargs: the class's other arguments.

        Raises:
            ValueError: not a TextGym env, or a named model whose vocabulary is not the env's.
        """
        try:
            mdp, tokenizer = (attribute(env, name) for name in ("mdp", "tokenizer"))
        except AttributeError as error:
            raise ValueError(f"{env} is not a TextGym env: it has no TextMDP") from error
        if model is None:
            model = default_model(env)
        if isinstance(model, str):
            check_vocabulary(tokenizer, model)
        return {"mdp": mdp, "model": model, "lora": lora, "dtype": dtype, **kwargs}

    def _build(self, lr_schedule: Schedule) -> None:
        """Nothing: the constructor builds the language model in place of SB3's networks."""

    def _trunks(self) -> list[Any]:
        return [self.model] if self.value_trunk is None else [self.model, self.value_trunk]

    def train(self, mode: bool = True) -> TokenPolicy:
        """Set the training flag; the language model stays in eval mode, so that dropout is off."""
        super().train(mode)
        for trunk in self._trunks():
            trunk.eval()
            for module in trunk.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = mode  # the layer alone, not what is in it: transformers checkpoints in training
        return self

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of every forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The untrained model, where the policy was made with `lora`: a reference without a second copy."""
        self.model.disable_adapters()
        try:
            yield
        finally:
            self.model.enable_adapters()

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key-value cache."""
        return self._decoders.cache_bytes

    def get_distribution(self, obs: PyTorchObs) -> CategoricalDistribution:  # type: ignore[override]
        """The distribution of the next token, (N, V), by cached decoding; no gradient; uniform for ended rows."""
        log_probs, _, live = self._decode(obs)
        every = log_probs.new_zeros(len(live), self.mdp.vocab_size)
        every[live] = log_probs
        return CategoricalDistribution(self.mdp.vocab_size).proba_distribution(every)

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose tokens by cached decoding, without gradient.

        Returns:
            actions (N,) int64, values (N, 1), log-probabilities (N,); all 0 for rows that have ended.

        Raises:
            FloatingPointError: the model's logits are not finite.
        """
        log_probs, values, live = self._decode(obs)
        actions, chosen_log_probs = choose(log_probs, live, deterministic)
        return actions, values, chosen_log_probs

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        return self.forward(observation, deterministic)[0]  # type: ignore[arg-type]

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Values of states, (N, 1), by cached decoding; no gradient; 0 for rows that have ended."""
        return self._decode(obs)[1]

    @torch.no_grad()
    def _decode(self, obs: PyTorchObs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities (n, V) of the rows that have not ended; values (N, 1); which rows these are, (N,)."""
        observations = obs.long()  # type: ignore[union-attr]
        if self.training:  # gradient checkpointing works without a cache only
            self.train(False)
            try:
                return self._decode(obs)
            finally:
                self.train(True)
        with self.autocast():
            hidden, live = self._decoders.hidden(observations)
            on_device = live.to(hidden[0].device)
            logits = logits_of(self._decoders.model, hidden[0][on_device], self.mdp.vocab_size)
        lengths = self._lengths(observations[live.to(observations.device)]).to(logits.device)
        values = self._values(hidden[-1]) * on_device[:, None]
        return self.distribution.log_probs(logits, lengths), values, live

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.value_net(hidden.float())

    def _lengths(self, observations: torch.Tensor) -> torch.Tensor:
        return (observations[:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).sum(-1)

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
        obs = obs.long()
        with self.autocast(), memory_advice("lower batch_size"):
            hidden = state_hidden(self.model, self.mdp, obs)
            log_probs, entropies, _ = score_tokens(
                self.model, self.distribution, hidden, self._lengths(obs), actions.long()
            )
            if self.value_trunk is not None:
                hidden = state_hidden(self.value_trunk, self.mdp, obs)
        return self._values(hidden), log_probs, entropies

    def evaluate_episodes(
        self, rows: torch.Tensor, actions: torch.Tensor, entropy_gradient: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`evaluate_actions` for whole episodes, in one forward pass.

        Args:
            rows: (B, P + T) int64 last observations.
            actions: (B, T) int64 completions, padded.
            entropy_gradient: False saves time where no entropy bonus is paid.

        Returns:
            values, log-probabilities and entropies, each (B, T) float32, 0 at padding.
        """
        with self.autocast(), memory_advice("lower micro_batch_size"):
            hidden, terms = self._score_episodes(self.model, rows, actions, entropy_gradient=entropy_gradient)
            log_probs, entropies, _ = terms
            if self.value_trunk is not None:
                hidden = episode_hidden(self.value_trunk, self.mdp, rows)
        values = self._values(hidden).squeeze(-1)
        return by_step(actions, self.mdp, values, log_probs, entropies)  # type: ignore[return-value]

    @torch.no_grad()
    def scores_under(self, model: Any, rows: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and log-normalizers under another model: same masks and temperature, no truncation.

        Args:
            model: a causal LM, such as the reference; it is not truncated, so that all that is drawn is possible.
            rows: (B, P + T) int64 last observations.
            actions: (B, T) int64 completions, padded.

        Returns:
            log-probabilities of the tokens, and log-normalizers (see `score_tokens`) of the states before them, each
            (B, T) float32, 0 at padding.
        """
        with self.autocast(), memory_advice("lower micro_batch_size"):
            _, (log_probs, _, log_normalizers) = self._score_episodes(model, rows, actions, truncate=False)
        return by_step(actions, self.mdp, log_probs, log_normalizers)  # type: ignore[return-value]

    def _score_episodes(
        self, model: Any, rows: torch.Tensor, actions: torch.Tensor, **options: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Hidden states (M, H) of the real tokens, and what `score_tokens` makes of them."""
        real = actions != self.mdp.pad_id
        lengths = (real.cumsum(-1) - 1)[real]
        hidden = episode_hidden(model, self.mdp, rows)
        return hidden, score_tokens(model, self.distribution, hidden, lengths, actions[real], **options)
