"""Soft Q-learning for language models: a model's logits, measured from the reference's, are its Q-values.

With the logits l of the trained model and of the frozen reference a (masked, and divided by the temperature),

    Q(s, x) = beta (l(s, x) - l_a(s, x))
    V(s)    = beta log sum_x a(x | s) exp(Q(s, x) / beta) = beta (log sum_x exp l(s, x) - log sum_x exp l_a(s, x)),

so a exp((Q - V) / beta) = softmax(l): the language model itself is the soft-optimal policy of its Q-values, and neither
Q nor V needs a network. Both start at zero. They are trained by path consistency (Nachum et al. 2017, arXiv 1702.08892;
for language models Guo et al. 2021, arXiv 2106.07704). Left out: one-step Bellman errors and all sub-paths, which
measured worse, a target network, which whole paths do not need, and a replay buffer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from textgym.arguments import Count, Named, Positive
from textgym.sb3 import EpisodicAlgorithm, TokenPolicy
from textgym.training import Episodes, TokenTerms
from textgym.training.returns import returns_to_go

Consistency = Literal["trajectory", "suffix"]


class SoftQLearning(EpisodicAlgorithm):
    """Path consistency: the value of a state is the soft return of every path from it to the end.

        C_t = V(s_t) - sum_{u >= t} gamma^(u - t) (r_u - beta log(pi(x_u | s_u) / a(x_u | s_u)))

    is 0 for all paths exactly where pi is the soft-optimal policy, without discount pi(x) proportional to
    a(x) exp(r(x) / beta) over completions. The loss is C^2 / 2 and goes through V and log pi. It holds for paths from
    any policy, so a rollout may be used for several epochs; and at the optimum every single gradient is zero.

    Logged in each update, as means over real tokens: `train/consistency` (C^2 in squared reward), `train/value` (V of
    the episode's first state, which tends to the best possible E[r] - beta KL(pi || a)) and `train/entropy`.

    Example:
        >>> from agents import SoftQLearning
        >>> agent = SoftQLearning("TokenPolicy", "TextGen-v0", beta=0.05)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        beta: weight of the KL to the reference, in reward per nat.
        consistency: `"trajectory"` takes C_0 of each episode: the policy is learned, V of first states and Q up to a
            constant in each state. `"suffix"` takes C_t of every step, which makes V and Q right wherever the policy
            goes, but the policy loses some modes on the way.
        batch_size: *episodes* in a minibatch; None takes the whole rollout.
        n_epochs: passes over the episodes of a rollout.
        **kwargs: see `EpisodicAlgorithm`. An `ent_coef` moves the optimum; beta already pays for entropy.

    Raises:
        ValueError: a value that an annotation excludes, top-k or top-p, or what `EpisodicAlgorithm` raises.
    """

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        beta: Positive = 0.1,
        consistency: Consistency = "trajectory",
        batch_size: Count | None = None,
        n_epochs: Count = 1,
        **kwargs: Any,
    ):
        self.beta, self.consistency, self.batch_size, self.n_epochs = beta, consistency, batch_size, n_epochs
        super().__init__(policy, env, model, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.token_model.distribution.refuse_truncation("a truncated policy is no softmax of Q-values")

    def train(self) -> None:
        """Epochs of gradient steps on the rollout's episodes."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        buffer = self.rollout_buffer
        buffer.episodes = self.with_returns(buffer.episodes)
        for _ in range(self.n_epochs):
            for batch in buffer.get(self.batch_size):
                self.gradient_step(batch, self.loss, "sequence")

    def with_returns(self, episodes: Episodes) -> Episodes:
        """The episodes with `returns`: what `path_terms` of the optimal policy are, (E, T)."""
        reference = self.path_terms(episodes.reference_log_normalizers, episodes.reference_log_probs)
        return episodes.replace(returns=returns_to_go(episodes.rewards, self.gamma) + reference)

    def path_terms(self, log_normalizers: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """What C_t takes from a model: beta (log sum_x exp l(s_t, x) + sum_{u >= t} gamma^(u - t) log pi(x_u | s_u)).

        C_t is that of the policy, minus that of the reference, minus the return.

        Args:
            log_normalizers: (B, T)
            log_probs: (B, T), 0 at padding.

        Returns:
            (B, T)
        """
        return self.beta * (log_normalizers + returns_to_go(log_probs, self.gamma))

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T), and what is logged; by trajectory, all tokens of an episode have C_0's."""
        errors = self.path_terms(terms.log_normalizers, terms.log_probs) - episodes.returns  # (B, T) C_t
        if self.consistency == "trajectory":
            errors = errors[:, :1].expand_as(errors)
        log_ratios = terms.log_normalizers - episodes.reference_log_normalizers  # V / beta
        values = self.beta * log_ratios[:, :1].expand_as(errors)
        return errors**2 / 2, {"consistency": errors**2, "value": values}
