"""Every answer of a language model to each of an env's prompts, where few tokens are allowed: a tree per prompt.

K ordinary tokens and E that end a text are allowed, and an answer has at most T tokens. A *context* is a completion
that may still grow. The X *outcomes* of a prompt are its finished completions: by length, the contexts that may end,
followed by each EOS id, and then the K^T of T ordinary tokens, which have no EOS. Contexts of a length are in the order
of base-K numbers, the digits being places among the allowed tokens in ascending order.

Nothing is pruned: all outcomes are there, and their probabilities sum to 1. Left out: gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch

from textgym.envs.task import TextTask
from textgym.evaluation.policies import Policy
from textgym.language_models import load_model
from textgym.language_models.branches import branch_hidden
from textgym.language_models.distribution import LOWEST, TokenDistribution
from textgym.language_models.forward import check_model, logits_of
from textgym.language_models.log_probs import LOGITS_PER_CHUNK
from textgym.language_models.token_model import TokenModel
from textgym.mdp import IntArray

MAX_ENTRIES = 2**26
"""The largest table, prompts x outcomes: 512 MiB in float64."""
ROWS_AT_ONCE = 2**14
"""Contexts of one length that a forward pass takes, and rows that the scorer takes, unless a single prompt has more."""


class AnswerTree:
    """All outcomes of some prompts of an env, what a model says of them, and what the env pays for them.

    Tables are float64 on the CPU, one row per prompt and one column per outcome: (C, X).

    Args:
        env: a TextGym env, single or vector.
        prompt_ids: C of its prompts, by their ids; None for all that its source has.

    Attributes:
        task: the env's.
        prompt_ids: (C,) int64.
        tokens: (K,) int64, the ordinary tokens that are allowed.
        eos_tokens: (E,) int64, the tokens that are allowed and end a text.

    Raises:
        ValueError: it is not a TextGym env, or has several turns, its prompts come from a function, only EOS is
            allowed, or there are too many outcomes.
    """

    def __init__(self, env: Any, prompt_ids: Any = None):
        task = getattr(env.unwrapped, "task", None)
        if not isinstance(task, TextTask):
            raise ValueError(f"{env} is not a TextGym env")
        task.mdp.refuse_turns("AnswerTree")
        if prompt_ids is None:
            if task.prompts.num_prompts is None:
                raise ValueError("the env's prompts come from a function, which has no end; give prompt_ids")
            prompt_ids = np.arange(task.prompts.num_prompts)
        self.task, self.prompt_ids = task, np.asarray(prompt_ids, np.int64)
        allowed, is_eos = task.mdp.allowed, task.mdp.is_eos
        self.tokens = torch.from_numpy(np.flatnonzero(allowed & ~is_eos))
        self.eos_tokens = torch.from_numpy(np.flatnonzero(allowed & is_eos))
        if not len(self.tokens):
            raise ValueError("the env allows no token but those that end a text, so there is nothing to enumerate")
        if len(self.prompt_ids) * self.num_outcomes > MAX_ENTRIES:
            raise ValueError(
                f"{len(self.tokens)} ordinary tokens are allowed, and answers have up to {task.mdp.max_new_tokens}: "
                f"{self.num_outcomes:,} outcomes for each of {len(self.prompt_ids):,} prompts, more than "
                f"{MAX_ENTRIES:,} in all; choose fewer prompts with prompt_ids, or allow less (allowed_tokens, "
                "max_new_tokens)"
            )

    @property
    def num_outcomes(self) -> int:
        """The number of outcomes of a prompt: X."""
        k, mdp = len(self.tokens), self.task.mdp
        ended = sum(len(self.eos_tokens) * k**d for d in range(mdp.min_new_tokens, mdp.max_new_tokens))
        return ended + k**mdp.max_new_tokens

    @property
    def num_contexts(self) -> int:
        """The number of contexts of a prompt: S = 1 + K + ... + K^(T-1)."""
        return sum(len(self.tokens) ** d for d in range(self.task.mdp.max_new_tokens))

    @cached_property
    def outcomes(self) -> torch.Tensor:
        """(X, T) token ids of the outcomes, EOS included, left-aligned and padded; int64."""
        mdp = self.task.mdp
        levels = [self._children(d) for d in range(mdp.max_new_tokens)]
        ended = [rows[mdp.is_eos[rows[:, d]]] for d, rows in enumerate(levels)]
        return torch.from_numpy(np.concatenate([*ended, levels[-1][~mdp.is_eos[levels[-1][:, -1]]]]))

    @property
    def lengths(self) -> torch.Tensor:
        """(X,) tokens of each outcome, EOS included."""
        return (self.outcomes != self.task.mdp.pad_id).sum(-1)

    def log_probs(self, model: Any, **distribution: Any) -> torch.Tensor:
        """The log-probabilities log pi(x | c) of all outcomes.

        Args:
            model: an agent or a `ModelPolicy`, or its token model, each with its own temperature, top-k and top-p; or
                what `load_model` accepts.
            **distribution: of a plain model: `temperature`, `top_k` and `top_p`, as `TokenDistribution` has them.

        Returns:
            (C, X); -inf where top-k or top-p forbid an outcome.

        Raises:
            ValueError: the model does not fit the env, or brings its own distribution and another one is given.
        """
        token_model = getattr(model, "token_model", model)
        if not isinstance(token_model, TokenModel):
            model = load_model(model)
            check_model(model, self.task.mdp)
            return self._log_probs(model, TokenDistribution(self.task.mdp, **distribution).to(model.device))
        if distribution:
            raise ValueError(f"the model brings its own {next(iter(distribution))}; give it for a plain model only")
        self._check_mdp(token_model)
        with token_model.autocast():
            return self._log_probs(token_model.model, token_model.distribution)

    def reference_log_probs(self, policy: Policy) -> torch.Tensor:
        """The log-probabilities log a(x | c) under a policy's reference, at its temperature and without truncation.

        Args:
            policy: an agent or a `ModelPolicy`.

        Returns:
            (C, X).

        Raises:
            ValueError: the policy has no reference, or does not fit the env.
        """
        if policy.reference is None:
            raise ValueError("this policy has no reference; name one (reference=...)")
        self._check_mdp(policy.token_model)
        with policy.reference.running() as model, policy.token_model.autocast():
            return self._log_probs(model, policy.token_model.distribution, truncate=False)

    def scores(self) -> dict[str, torch.Tensor]:
        """What the env pays and reports for every outcome, as in `info` at the end of an episode.

        Returns:
            (C, X) for every scorer component by its name, and `"reward"`, the episode's undiscounted return.

        Raises:
            ScorerError: the scorer failed.
        """
        levels = [self._step_scores(d) for d in range(self.task.mdp.max_new_tokens)]
        return {name: self._accumulate(level[name] for level in levels) for name in levels[0]}

    def _check_mdp(self, token_model: TokenModel) -> None:
        if token_model.mdp != self.task.mdp:
            raise ValueError(f"the model was made for another MDP than the env's: {token_model.mdp}")

    @torch.no_grad()
    def _log_probs(self, model: Any, distribution: TokenDistribution, truncate: bool = True) -> torch.Tensor:
        """(C, X) under a causal LM whose logits become a distribution."""
        mdp, tokens = self.task.mdp, self.tokens.to(model.device)
        rows = torch.from_numpy(self.task.prompts.observations(self.prompt_ids)[:, : mdp.max_prompt_tokens]).long()
        lengths = (rows != mdp.pad_id).sum(-1)
        table = torch.empty(len(rows), self.num_outcomes, dtype=torch.float64)
        at_once = max(1, ROWS_AT_ONCE // len(tokens) ** (mdp.max_new_tokens - 1))
        with _evaluating(model):
            for length in lengths.unique().tolist():
                for chosen in (lengths == length).nonzero().flatten().split(at_once):
                    prompts = rows[chosen, mdp.max_prompt_tokens - length :].to(model.device)
                    levels = enumerate(branch_hidden(model, prompts, tokens, mdp.max_new_tokens))
                    steps = (self._step_log_probs(model, distribution, truncate, d, hidden) for d, hidden in levels)
                    table[chosen] = self._accumulate(steps)
        return table

    def _step_log_probs(
        self, model: Any, distribution: TokenDistribution, truncate: bool, d: int, hidden: torch.Tensor
    ) -> torch.Tensor:
        """(M, A) log-probabilities of the actions after d tokens, from hidden states (M, H)."""
        vocab_size, actions = self.task.mdp.vocab_size, self._actions(d).to(hidden.device)
        parts = []
        for part in hidden.split(max(1, LOGITS_PER_CHUNK["cpu"] // vocab_size)):
            lengths = torch.full((len(part),), d, device=part.device)
            log_probs = distribution.log_probs(logits_of(model, part, vocab_size), lengths, truncate=truncate)
            parts.append(log_probs[:, actions].double().cpu())
        steps = torch.cat(parts)
        return steps.masked_fill(steps <= LOWEST / 2, -torch.inf)

    def _step_scores(self, d: int) -> dict[str, torch.Tensor]:
        """(C K^d, A) for every component and the reward: what is paid for every action after d tokens."""
        mdp, children = self.task.mdp, self._children(d)
        ended = mdp.is_eos[children[:, d]] | mdp.is_full[d + 1]
        at_once, parts = max(1, ROWS_AT_ONCE // len(children)), []
        for start in range(0, len(self.prompt_ids), at_once):
            ids = self.prompt_ids[start : start + at_once]
            rows = self.task.prompts.observations(ids).astype(np.int64).repeat(len(children), 0)
            rows[:, mdp.max_prompt_tokens :] = np.tile(children, (len(ids), 1))
            numbers, lengths = np.arange(len(rows)), np.full(len(rows), d + 1)
            scores = self.task.score(rows, ids.repeat(len(children)), numbers, lengths, np.tile(ended, len(ids)))
            parts.append(scores.components | {"reward": scores.rewards})
        actions = len(self._actions(d))
        return {name: torch.from_numpy(np.concatenate([p[name] for p in parts])).view(-1, actions) for name in parts[0]}

    def _actions(self, d: int) -> torch.Tensor:
        """(A,) what may follow d tokens: ordinary tokens, and then what ends the text, if it may end."""
        return self.tokens if d < self.task.mdp.min_new_tokens else torch.cat([self.tokens, self.eos_tokens])

    def _children(self, d: int) -> IntArray:
        """(K^d A, T) the contexts of d tokens with each action behind them, context by context; padded."""
        tokens, actions = self.tokens.numpy(), self._actions(d).numpy()
        contexts, action = np.divmod(np.arange(len(tokens) ** d * len(actions)), len(actions))
        rows = np.full((len(contexts), self.task.mdp.max_new_tokens), self.task.mdp.pad_id, np.int64)
        rows[:, d] = actions[action]
        for column in reversed(range(d)):
            contexts, digit = np.divmod(contexts, len(tokens))
            rows[:, column] = tokens[digit]
        return rows

    def _accumulate(self, levels: Iterable[torch.Tensor]) -> torch.Tensor:
        """Sums along the path to every outcome: (n K^d, A) for d = 0, 1, ..., T - 1 -> (n, X)."""
        k, ended, sums = len(self.tokens), [], torch.zeros(1, 1, dtype=torch.float64)
        for d, steps in enumerate(levels):
            onward = sums + steps
            ended.append(onward[:, k:].reshape(len(steps) // k**d, -1))
            sums = onward[:, :k].reshape(-1, 1)
        return torch.cat([*ended, sums.view(len(ended[0]), -1)], 1)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """A model without dropout, and without the checkpointing of layers that are trained, which excludes a cache."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
