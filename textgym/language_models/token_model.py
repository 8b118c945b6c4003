"""A causal language model as a policy of tokens: its distribution under the env's masks, a value head, and decoding.

This is all that an RL library's policy class needs; `textgym.sb3.TokenPolicy` is a shell over it. Sampling decodes with
a key-value cache, training runs whole episodes in one forward pass, and both give the same log-probabilities, because
temperature, top-k and top-p are part of the distribution and dropout is always off.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from textgym.arguments import AsJSON, CheckedArguments, Count, Named, Positive, PositiveShare
from textgym.language_models.adapters import (
    add_adapters,
    check_adapters,
    num_virtual_tokens,
    peft_config,
    rank_schedules,
)
from textgym.language_models.decoder import check_decoding
from textgym.language_models.decoding import TrainedDecoders
from textgym.language_models.distribution import TokenDistribution, choose
from textgym.language_models.forward import check_model, logits_of, memory_advice, state_hidden
from textgym.language_models.loader import load_model
from textgym.language_models.log_probs import TokenTerms, by_step, token_terms
from textgym.language_models.precision import Precision, lower_frozen_matrices
from textgym.language_models.shared_prompts import episode_hidden, shares_prompts
from textgym.mdp import TextMDP

ValueFunction = Literal["shared", "separate"]


class TokenModel(CheckedArguments, nn.Module):
    """The next-token distribution of a causal LM under an MDP's masks, and a value head that starts at zero.

    Trained weights are float32; `dtype="bfloat16"` runs the forward passes under autocast.

    Attributes:
        model: the causal LM.
        distribution: what its logits become.
        peft: the configuration of the adapters that are trained in place of the model; None where there are none.
        ranks: AdaLoRA's schedules, one for each trunk; empty for every other kind of adapters.
        value_net: (H) -> (1), the value head.
        value_trunk: the trunk beneath the value head; None where the language model's own serves both.

    Args:
        mdp: the MDP of the observations.
        model: a name, a directory, a hub id, or a loaded model, which is used as it is, not copied.
        peft: a `peft.PeftConfig`, or its arguments with the `peft_type`: only adapters and the value head are trained.
        lora: arguments of `peft.LoraConfig`, or one: `peft` for the type `"LORA"`.
        dtype: `"bfloat16"` runs the forward passes under autocast; None is float32.
        value_function: `"shared"` puts the value head on the language model's last hidden state, `"separate"` on a copy
            of the model's trunk, so that value gradients leave the policy alone.
        temperature: the policy's logits are divided by it, in sampling and in training.
        top_k: only the k most likely tokens are possible, in sampling and in training; None keeps all.
        top_p: only the most likely tokens with this much probability together are possible, in sampling and in
            training; None keeps all.
        gradient_checkpointing: recompute activations in the backward pass, for less memory and a third more time.

    Raises:
        ValueError: the model cannot play the MDP (`check_model`), no parameter is trainable, or a value that an
            annotation excludes.
    """

    def __init__(
        self,
        mdp: TextMDP,
        model: Named = "tiny",
        *,
        peft: AsJSON = None,
        lora: AsJSON = None,
        dtype: Precision | None = None,
        value_function: ValueFunction = "shared",
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: PositiveShare | None = None,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.mdp, self.peft, self.dtype = mdp, peft_config(peft, lora), dtype or "float32"
        self.distribution = TokenDistribution(mdp, temperature, top_k, top_p)
        self.model = load_model(model, dtype="float32")
        check_adapters(self.model)
        check_model(self.model, mdp)
        check_decoding(self.model, mdp)
        if self.peft is not None:
            add_adapters(self.model, self.peft)
        if num_virtual_tokens(self.model):
            if gradient_checkpointing:
                raise ValueError("gradient_checkpointing keeps no cache, where virtual tokens are")
            check_model(self.model, mdp)
            check_decoding(self.model, mdp)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ValueError("the model has no trainable parameter (requires_grad is False everywhere)")
        self.value_trunk = copy.deepcopy(self.model.base_model) if value_function == "separate" else None
        self.value_net = nn.Linear(self.model.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        for trunk in self._trunks():
            if self.dtype == "bfloat16":
                lower_frozen_matrices(trunk)
            if gradient_checkpointing:
                trunk.activation_checkpointing_enable({"use_reentrant": False})
        self.ranks = rank_schedules(self.peft, self._trunks())
        self._decoders = TrainedDecoders(self._trunks(), mdp, autocast=self.dtype == "bfloat16")
        self.eval()

    def _trunks(self) -> list[Any]:
        return [self.model] if self.value_trunk is None else [self.model, self.value_trunk]

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget what was decoded whenever this optimizer steps, and let the ranks of AdaLoRA follow their schedule.

        Every optimizer of the weights must be followed.
        """
        self._decoders.follow(optimizer)
        for schedule in self.ranks:
            optimizer.register_step_pre_hook(lambda *_, schedule=schedule: schedule.before_step())
            optimizer.register_step_post_hook(lambda *_, schedule=schedule: schedule.after_step())

    def reset(self) -> None:
        """Forget what was decoded, so that what comes does not depend on it, not even by rounding."""
        self._decoders.reset()

    def train(self, mode: bool = True) -> TokenModel:
        """Set the training flag; the language model stays in eval mode, so that dropout is off."""
        super().train(mode)
        for trunk in self._trunks():
            trunk.eval()
            for module in trunk.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = mode  # the layer alone, not what is in it: transformers checkpoints in training
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.value_net.weight.device

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of every forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The untrained model, where there are adapters: a reference without a second copy."""
        self.model.disable_adapters()
        try:
            yield
        finally:
            self.model.enable_adapters()

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key-value cache."""
        return self._decoders.cache_bytes

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose tokens by cached decoding, without gradient.

        Args:
            obs: (N, P + T) observations.
            deterministic: the likeliest token in place of a sample.

        Returns:
            actions (N,) int64, values (N, 1), log-probabilities (N,); all 0 for rows that have ended.

        Raises:
            FloatingPointError: the model's logits are not finite.
        """
        log_probs, values, live = self.decode(obs)
        actions, chosen_log_probs = choose(log_probs, live, deterministic)
        return actions, values, chosen_log_probs

    @torch.no_grad()
    def decode(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the next token is drawn from, by cached decoding.

        Args:
            obs: (N, P + T) observations.

        Returns:
            log-probabilities (n, V) of the n rows that have not ended; values (N, 1), 0 for those that have; and which
            rows have not, (N,) bool on the CPU.
        """
        observations = obs.long()
        if self.training:  # gradient checkpointing works without a cache only
            self.train(False)
            try:
                return self.decode(obs)
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

    def evaluate_states(self, obs: torch.Tensor, actions: torch.Tensor) -> TokenTerms:
        """Single states, with gradient.

        Args:
            obs: (B, P + T) int64 observations that have not ended.
            actions: (B,) the token chosen in each.

        Returns:
            the terms, (B,) each.
        """
        obs = obs.long()
        with self.autocast(), memory_advice("lower batch_size"):
            hidden = state_hidden(self.model, self.mdp, obs)
            terms = token_terms(self.model, self.distribution, hidden, self._lengths(obs), actions.long())
            if self.value_trunk is not None:
                hidden = state_hidden(self.value_trunk, self.mdp, obs)
        return terms._replace(values=self._values(hidden).squeeze(-1))

    def evaluate_episodes(self, rows: torch.Tensor, actions: torch.Tensor, entropy_gradient: bool = True) -> TokenTerms:
        """Every action of whole episodes in one forward pass, with gradient.

        Args:
            rows: (B, P + T) int64 last observations.
            actions: (B, T) int64 the tokens that were chosen, in their places: completions, padded, and padded also
                where a partner speaks.
            entropy_gradient: False saves time where no entropy bonus is paid.

        Returns:
            the terms, (B, T) float32 each, 0 at padding.
        """
        with self.autocast(), memory_advice("lower micro_batch_size"):
            hidden, terms = self._terms_of_episodes(self.model, rows, actions, entropy_gradient=entropy_gradient)
            if self.value_trunk is not None:
                hidden = self._hidden_of_episodes(self.value_trunk, rows, actions)
        return by_step(actions, self.mdp, terms._replace(values=self._values(hidden).squeeze(-1)))

    @torch.no_grad()
    def terms_under(self, model: Any, rows: torch.Tensor, actions: torch.Tensor) -> TokenTerms:
        """`evaluate_episodes` of another model, such as the reference: same masks and temperature, no truncation.

        It is not truncated, so that every token that was drawn is possible under it. It has no value head, so its
        values are 0.
        """
        with self.autocast(), memory_advice("lower micro_batch_size"):
            _, terms = self._terms_of_episodes(model, rows, actions, truncate=False)
        return by_step(actions, self.mdp, terms)

    def shares_prompts(self, model: Any = None) -> bool:
        """Whether a model, by default the policy's, computes a prompt once for all of its completions."""
        with self.autocast():
            return shares_prompts(self.model if model is None else model, self.mdp)

    def _terms_of_episodes(
        self, model: Any, rows: torch.Tensor, actions: torch.Tensor, **options: bool
    ) -> tuple[torch.Tensor, TokenTerms]:
        """Hidden states (M, H) of the real tokens, and what `token_terms` makes of them."""
        real = actions != self.mdp.pad_id
        lengths = torch.arange(actions.shape[1], device=actions.device).expand_as(actions)[real]
        hidden = self._hidden_of_episodes(model, rows, actions)
        return hidden, token_terms(model, self.distribution, hidden, lengths, actions[real], **options)

    def _hidden_of_episodes(self, model: Any, rows: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """The hidden states that the actions were drawn from, (M, H)."""
        hidden = episode_hidden(model, self.mdp, rows)
        if not self.mdp.eot_token_ids:
            return hidden
        written = rows[:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id  # a partner's tokens, too
        return hidden[(actions != self.mdp.pad_id)[written]]
