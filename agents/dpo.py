"""DPO and its kin: a policy learns from pairs of texts, without a reward model.

The loss makes the implicit reward of a text (`textgym.training.preference_losses`) larger for the preferred one of each
pair. DPO takes the pairs from a data set, online DPO samples them from the policy and lets the env's scorer judge.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.offline import Candidates, OfflineAlgorithm
from textgym.arguments import Named, Positive, Probability, Range
from textgym.matching.divergences import DivergenceName, make_divergence
from textgym.sb3 import EpisodicAlgorithm, TokenPolicy
from textgym.sb3.checkpoints import num_generations
from textgym.training import Episodes, TokenTerms
from textgym.training.preference_losses import (
    PreferenceLoss,
    check_invertible,
    implicit_rewards,
    pair_statistics,
    preference_loss,
    ranked_pairs,
)
from textgym.training.returns import returns_to_go


class DirectPreference(EpisodicAlgorithm):
    """What DPO and online DPO share: the loss of pairs, and what is logged of them.

    Logged in each update, as means over its pairs and with TRL's names: `rewards/chosen` and `rewards/rejected`, the
    implicit rewards; `rewards/margins`, their differences; `rewards/accuracies`, how often the margin is positive; and
    `logps/chosen` and `logps/rejected`, log pi of the texts, in nats.

    Args:
        beta: weight of the divergence from the reference, in reward per nat; with `"ipo"`, tau of the paper.
        loss_type: `"sigmoid"` is DPO's, -log sigmoid(margin); `"ipo"` is (margin / beta - 1 / (2 beta))^2, which pulls
            no pair apart without end.
        label_smoothing: the probability that a label is wrong: so much of the loss is that of the pair reversed.
        f_divergence_type: what measures the distance from the reference: f of D_f(pi || a) (f-DPO), by the names of
            `textgym.matching.make_divergence`. `"reverse_kl"` is DPO. `"total_variation"` and `"chi2_reverse"` are
            refused, because their f' defines no implicit reward.
        f_alpha_divergence_coef: alpha, for the divergence `"alpha"` alone: 0 is the forward KL, 1 the reverse.
        **kwargs: see `EpisodicAlgorithm`.

    Raises:
        ValueError: a value that an annotation excludes, a divergence that is refused, top-k or top-p, or what
            `EpisodicAlgorithm` raises.
    """

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        beta: Positive = 0.1,
        loss_type: PreferenceLoss = "sigmoid",
        label_smoothing: Annotated[float, Range(0, 0.5)] = 0.0,
        f_divergence_type: DivergenceName = "reverse_kl",
        f_alpha_divergence_coef: Probability = 0.5,
        **kwargs: Any,
    ):
        self.beta, self.loss_type, self.label_smoothing = beta, loss_type, label_smoothing
        self.f_divergence_type, self.f_alpha_divergence_coef = f_divergence_type, f_alpha_divergence_coef
        alpha = f_alpha_divergence_coef if f_divergence_type == "alpha" else None
        self.f_divergence = make_divergence(f_divergence_type, alpha)
        check_invertible(self.f_divergence)
        super().__init__(policy, env, model, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.token_model.distribution.refuse_truncation("a truncated policy has no implicit reward for every text")

    def implicit_rewards(self, episodes: Episodes, log_probs: torch.Tensor) -> torch.Tensor:
        """Implicit rewards of E episodes, (E,) float64, from the policy's log-probabilities of their tokens, (E, T)."""
        log_ratios = (log_probs - episodes.reference_log_probs).double().sum(-1)
        return implicit_rewards(log_ratios, self.f_divergence, self.beta)

    def pairs(self, episodes: Episodes) -> torch.Tensor:
        """Which episodes are compared: indices of the better and of the worse one, (n, 2)."""
        return ranked_pairs(episodes.prompt_ids, returns_to_go(episodes.rewards, self.gamma)[:, 0])

    def loss(self, scale: float, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T): all those of an episode have `scale` times the losses of pairs it wins."""
        better, worse = self.pairs(episodes).T
        rewards = self.implicit_rewards(episodes, terms.log_probs)  # (B,)
        margins = rewards[better] - rewards[worse]
        losses = preference_loss(margins, self.loss_type, self.beta, self.label_smoothing)
        sums = torch.zeros_like(rewards).index_add(0, better, scale * losses)
        return sums[:, None].expand_as(terms.log_probs), {}

    def step(self, episodes: Episodes) -> None:
        """A gradient step on the mean loss of the pairs in E episodes, and the log of it."""
        pairs = self.pairs(episodes)
        loss = partial(self.loss, len(episodes) / len(pairs))  # the mean over episodes becomes that over pairs
        log_probs = self.gradient_step(episodes, loss, "sequence", whole_groups=True)
        assert log_probs is not None
        for name, value in pair_statistics(pairs, self.implicit_rewards(episodes, log_probs), log_probs).items():
            self.logger.record(name, value)


class DPO(DirectPreference, OfflineAlgorithm):
    """DPO (Rafailov et al. 2023), with IPO's loss (Azar et al. 2023) and f-DPO's divergences (Wang et al. 2024).

    Example:
        >>> from agents import DPO
        >>> pairs = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " a bore."}]
        >>> agent = DPO("TokenPolicy", "TextGen-v0", dataset=pairs, beta=0.1)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        dataset: pairs: a file of JSON lines, a `datasets.Dataset`, or an iterable of mappings, with the columns of
            TRL's preference format, `prompt`, `chosen` and `rejected` (`textgym.preferences.read_preferences`). Needed
            to train, but not to evaluate a checkpoint, which does not hold it.
        **kwargs: see `DirectPreference` and `OfflineAlgorithm`.
    """

    def candidates(self, dataset: Any) -> list[Candidates]:
        """Two texts in each group."""
        return [Candidates(p.prompt, p.chosen, (p.rejected,), where) for where, p in self.preferences(dataset)]


class OnlineDPO(DirectPreference):
    """Online DPO (Guo et al. 2024, arXiv 2402.04792): the pairs are the policy's own texts, judged by the env's scorer.

    The episodes of a prompt that were sampled side by side (`num_generations`) are compared with one another; of two
    with the same return, neither was better, so they make no pair, and a rollout without any pair is no update. Logged
    in each rollout beside the usual: `rollout/pairs`, and `rollout/ties`, the share of comparisons that were ties.

    Example:
        >>> from agents import OnlineDPO
        >>> agent = OnlineDPO("TokenPolicy", "TextGen-v0", beta=0.1)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        pairing: `"best_worst"` compares the episode with the highest return of a group and that with the lowest,
            `"all"` all its episodes with one another.
        **kwargs: see `DirectPreference`.

    Raises:
        ValueError: the env has `num_generations=1`, or what `DirectPreference` raises.
    """

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        pairing: Literal["best_worst", "all"] = "all",
        **kwargs: Any,
    ):
        self.pairing = pairing
        super().__init__(policy, env, model, **kwargs)

    def check_groups(self, env: VecEnv) -> None:
        """Refuse an env whose prompts come once, with a ValueError."""
        if num_generations(env) < 2:
            raise ValueError(
                "OnlineDPO compares the episodes of a prompt, and the env has num_generations=1; make it with 2 or more"
            )

    def compared(self, episodes: Episodes) -> tuple[Episodes, int]:
        """The episodes that are compared, with `prompt_ids` that number their groups; and the number of comparisons."""
        assert self.env is not None
        size = num_generations(self.env)
        first = torch.arange(0, len(episodes), size, device=episodes.rows.device)  # of each group
        episodes = episodes.replace(prompt_ids=torch.arange(len(first)).to(first).repeat_interleave(size))
        if self.pairing == "all":
            return episodes, len(first) * size * (size - 1) // 2
        returns = returns_to_go(episodes.rewards, self.gamma)[:, 0].view(-1, size)
        ends = torch.stack([returns.argmax(-1), returns.argmin(-1)], -1)  # (groups, 2)
        return episodes.select((first[:, None] + ends).flatten()), len(first)

    def _log_rollout(self, episodes: Episodes) -> None:
        super()._log_rollout(episodes)
        compared, comparisons = self.compared(episodes)
        pairs = len(self.pairs(compared))
        self.logger.record("rollout/pairs", pairs)
        self.logger.record("rollout/ties", 1 - pairs / comparisons)

    def train(self) -> None:
        """One gradient step on the rollout's pairs, if there are any."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        compared, _ = self.compared(self.rollout_buffer.episodes)
        if len(self.pairs(compared)):
            self.step(compared)
