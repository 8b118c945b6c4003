"""Every context and every outcome of a small token MDP as arrays, and sums up and down their tree.

K ordinary tokens 0..K-1, the end-of-text token K, at most L actions. A *context* is a completion without EOS that is
shorter than L; the S contexts are numbered as in `textgym.contexts`, by length and then as base-K numbers. An *outcome*
is a finished completion; the X outcomes are the contexts followed by EOS, in their order, and then the K^L completions
of L ordinary tokens. So the children of all contexts by ordinary tokens, in order, are the contexts 1..S-1 and then the
outcomes S..X-1: walking the tree takes slices and reshapes, no indices.

Left out: prompts, several EOS ids and forbidden tokens. A tabular policy has one row of K + 1 logits per context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional as F

from textgym.contexts import table_shape
from textgym.exact.envs import score_actions, tree_sizes

MAX_CELLS = 2**26
"""The most token ids, outcomes x actions, that a tree may have: 512 MiB."""


@dataclass(frozen=True)
class TokenTree:
    """All contexts and outcomes of a token MDP with an empty prompt, and exact sums over them.

    Functions of a policy or of rewards take tensors, arrays or lists; they compute in float64 on the tensor's device,
    differentiably. Token ids are int64 on the CPU.

    Attributes:
        num_tokens: K, ordinary tokens; EOS is K, the pad id K + 1.
        max_new_tokens: L, the length limit, EOS included.

    Raises:
        ValueError: a size below 1, or a tree too large to enumerate.
    """

    num_tokens: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        table_shape(self.num_tokens, self.max_new_tokens)
        if self.num_outcomes * self.max_new_tokens > MAX_CELLS:
            raise ValueError(
                f"num_tokens={self.num_tokens} and max_new_tokens={self.max_new_tokens} make {self.num_outcomes:,} "
                f"outcomes of up to {self.max_new_tokens} tokens; more than {MAX_CELLS:,} token ids in all are too many"
            )

    @classmethod
    def of(cls, env: Any) -> TokenTree:
        """The tree of an env, single or vector, whose only prompt is BOS alone and that forbids no token.

        Raises:
            ValueError: the env is another one, or too large.
        """
        return cls(*tree_sizes(env))

    @property
    def num_contexts(self) -> int:
        """S = 1 + K + ... + K^(L-1)."""
        return self._offset(self.max_new_tokens)

    @property
    def num_outcomes(self) -> int:
        """The number of outcomes, X = S + K^L."""
        return self._offset(self.max_new_tokens + 1)

    @property
    def pad_id(self) -> int:
        """K + 1, the id of an empty cell."""
        return self.num_tokens + 1

    @cached_property
    def contexts(self) -> torch.Tensor:
        """(S, L) token ids of the contexts, left-aligned and padded."""
        return torch.cat([self._completions(length) for length in range(self.max_new_tokens)])

    @cached_property
    def outcomes(self) -> torch.Tensor:
        """(X, L) token ids of the outcomes, EOS included, left-aligned and padded."""
        ended = self.contexts.clone()
        ended[torch.arange(len(ended)), (ended != self.pad_id).sum(-1)] = self.num_tokens
        return torch.cat([ended, self._completions(self.max_new_tokens)])

    @cached_property
    def lengths(self) -> torch.Tensor:
        """(X,) actions of each outcome, EOS included."""
        return (self.outcomes != self.pad_id).sum(-1)

    @cached_property
    def observations(self) -> torch.Tensor:
        """(S, 1 + L) the contexts as an env observes them, BOS first; what a language model is asked about."""
        return F.pad(self.contexts, (1, 0), value=self.num_tokens)

    def index(self, completions: Any) -> torch.Tensor:
        """The number of each context or outcome: (..., L) padded token ids -> (...) int64.

        A context and its outcome (the context and EOS) have the same number, so EOS may be there or not.
        """
        tokens = torch.as_tensor(completions)
        numbers = torch.zeros(tokens.shape[:-1], dtype=torch.int64, device=tokens.device)
        for token in tokens.unbind(-1):  # index(s.k) = K index(s) + 1 + k
            numbers = torch.where(token < self.num_tokens, self.num_tokens * numbers + 1 + token, numbers)
        return numbers

    def log_probs(self, logits: Any) -> torch.Tensor:
        """Sequence log-probabilities log pi(x) of all outcomes: (S, K + 1) logits of a tabular policy -> (X,)."""
        return self.accumulate(self.log_policy(logits))

    def log_policy(self, logits: Any) -> torch.Tensor:
        """Normalised logits log pi(a|s): (S, K + 1) -> (S, K + 1); a logit of -inf forbids the action.

        Raises:
            ValueError: a context whose logits are nan or inf, or all -inf.
        """
        log_pi = self._table("logits", logits).log_softmax(-1)
        if (wrong := log_pi.isnan().any(-1)).any():
            context = int(wrong.nonzero()[0])
            raise ValueError(f"the logits of context {context} are {logits[context]}; they make no distribution")
        return log_pi

    def policy_of(self, log_weights: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy that samples outcomes in proportion to given masses: pi(a|s) = M(s.a) / M(s).

        M(s) is the mass of the outcomes that begin with s; a context without any mass gets the uniform policy.

        Args:
            log_weights: (X,) logarithms of unnormalised masses; -inf is no mass.

        Returns:
            the policy's log-probabilities, (S, K + 1), and log Z, the logarithm of the whole mass, ().

        Raises:
            ValueError: there is no mass, or a log-mass is nan or inf.
        """
        log_weights = self._per_outcome("log_weights", log_weights)
        if log_weights.isnan().any() or (log_weights == torch.inf).any():
            raise ValueError("log_weights contain nan or inf; a log-mass is finite, or -inf for none")
        log_mass, branches = self.backup(log_weights, lambda q_values, _: q_values.logsumexp(-1))
        if log_mass[0] == -torch.inf:
            raise ValueError("no outcome has any mass: every entry of log_weights is -inf")
        empty = (log_mass == -torch.inf)[:, None]
        return self.log_policy(branches.masked_fill(empty, 0.0)), log_mass[0]

    def expectation(self, logits: Any, values: Any) -> torch.Tensor:
        """E_pi of a function of the outcome: (S, K + 1) logits and (X,) values -> ()."""
        return self.log_probs(logits).exp() @ self._per_outcome("values", values)

    def kl(self, logits: Any, reference_logits: Any) -> torch.Tensor:
        """KL(pi || a) of two tabular policies over outcomes, in nats: two tables (S, K + 1) -> ()."""
        log_pi, log_a = self.log_probs(logits), self.log_probs(reference_logits)
        visited = log_pi > -torch.inf
        return log_pi[visited].exp() @ (log_pi - log_a)[visited]

    def scores(self, env: Any) -> dict[str, torch.Tensor]:
        """What the env pays and reports for every outcome, as in `info` at the end of an episode.

        Returns:
            (X,) float64 for every scorer component by its name, and `"reward"`, the episode's undiscounted return.

        Raises:
            ValueError: the tree is not that of the env.
            ScorerError: the scorer failed.
        """
        return {name: self.accumulate(steps) for name, steps in self.step_scores(env).items()}

    def step_scores(self, env: Any) -> dict[str, torch.Tensor]:
        """What the env pays for every action: as `scores`, with tables (S, K + 1).

        All but the last action of an episode are paid 0, unless the scorer pays per token.
        """
        if TokenTree.of(env) != self:
            raise ValueError(f"the env has {TokenTree.of(env)}, this is {self}")
        levels = [score_actions(env.unwrapped.task, self.observations[level]) for level in self._levels]
        return {name: torch.cat([level[name] for level in levels]) for name in levels[0]}

    def backup(
        self, rewards: Any, reduce: Callable[[torch.Tensor, slice], torch.Tensor], gamma: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Backward dynamic programming: Q(s,a) = r(s,a) + gamma V(s.a) and V(s) = reduce(Q(s,.)); V(outcome) = 0.

        Args:
            rewards: (X,) paid with the last action of each outcome, or (S, K + 1) paid per action.
            reduce: maps the Q-values of all contexts of one length, (n, K + 1), and the slice of these contexts to
                their values, (n,).
            gamma: discount per action.

        Returns:
            V, (S,), and Q, (S, K + 1).
        """
        steps = self._per_action(rewards)
        next_values = steps.new_zeros(self.num_tokens**self.max_new_tokens)
        values, q_values = [], []
        for level in reversed(self._levels):
            # (n, K) values of the children by ordinary tokens, and 0 for the outcome that EOS makes
            q_values.append(steps[level] + gamma * F.pad(next_values.view(-1, self.num_tokens), (0, 1)))
            next_values = reduce(q_values[-1], level)
            values.append(next_values)
        return torch.cat(values[::-1]), torch.cat(q_values[::-1])

    def accumulate(self, steps: Any) -> torch.Tensor:
        """Sums along the path to every outcome: (S, K + 1), a value per action, -> (X,)."""
        steps = self._table("steps", steps)
        sums = steps.new_zeros(1)
        ended = []
        for level in self._levels:
            onward = sums[:, None] + steps[level]  # (n, K + 1)
            ended.append(onward[:, -1])
            sums = onward[:, :-1].reshape(-1)
        return torch.cat([*ended, sums])

    def along(self, table: Any, completions: Any) -> torch.Tensor:
        """What a table says of each action of completions, such as V(s_t) or Q(s_t, a_t): (..., L) -> (..., L).

        Args:
            table: (S,) of contexts, or (S, K + 1) of contexts and actions.
            completions: (..., L) padded token ids, EOS included: `outcomes`, or the actions of episodes.

        Returns:
            (..., L) float64, 0 at padding.
        """
        per_context, tokens = torch.as_tensor(table).ndim == 1, torch.as_tensor(completions)
        shape = (self.num_contexts,) if per_context else (self.num_contexts, self.num_tokens + 1)
        values = _float64("entries of the table", table, shape, "contexts and actions")
        real = tokens != self.pad_id
        before = torch.ones(tokens.shape[-1], tokens.shape[-1], dtype=torch.bool, device=tokens.device).tril(-1)
        contexts = self.index(torch.where(before, tokens[..., None, :], self.pad_id)) * real  # (..., L)
        found = values[contexts] if per_context else values[contexts, tokens * real]
        return torch.where(real, found, 0.0)

    @property
    def _levels(self) -> list[slice]:
        """The contexts of each length."""
        return [slice(self._offset(n), self._offset(n + 1)) for n in range(self.max_new_tokens)]

    def _offset(self, length: int) -> int:
        """How many contexts are shorter than `length`."""
        return length if self.num_tokens == 1 else (self.num_tokens**length - 1) // (self.num_tokens - 1)

    def _completions(self, length: int) -> torch.Tensor:
        """(K^length, L) all sequences of ordinary tokens of one length, in order, padded."""
        numbers = torch.arange(self.num_tokens**length)
        digits = [numbers // self.num_tokens ** (length - 1 - i) % self.num_tokens for i in range(length)]
        empty = torch.full_like(numbers, self.pad_id)
        return torch.stack(digits + [empty] * (self.max_new_tokens - length), -1)

    def _per_action(self, rewards: Any) -> torch.Tensor:
        """Rewards as (S, K + 1): those of outcomes are paid with the last action."""
        if torch.as_tensor(rewards).ndim != 1:
            return self._table("rewards", rewards)
        rewards = self._per_outcome("rewards", rewards)
        ended, full = rewards[: self.num_contexts], rewards[self.num_contexts :]
        onward = torch.cat([rewards.new_zeros(self.num_contexts - 1), full]).view(-1, self.num_tokens)
        return torch.cat([onward, ended[:, None]], 1)

    def _table(self, name: str, values: Any) -> torch.Tensor:
        return _float64(name, values, (self.num_contexts, self.num_tokens + 1), "contexts and actions")

    def _per_outcome(self, name: str, values: Any) -> torch.Tensor:
        return _float64(name, values, (self.num_outcomes,), "outcomes")


def _float64(name: str, values: Any, shape: tuple[int, ...], meaning: str) -> torch.Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float64)
    if tensor.shape != shape:
        raise ValueError(f"{name} have shape {tuple(tensor.shape)}; this tree has {shape} {meaning}")
    return tensor
