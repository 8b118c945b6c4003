"""A language model as its own reward model: it learns to give the chosen text a higher score than the rejected ones.

    loss = -log exp s(x+) / (exp s(x+) + sum_j exp s(x_j)),    s(x) = beta log pi(x | prompt)

over the chosen text x+ and those that were rejected in its favour (InfoNCE over sequence scores). s is a log-
probability of the whole text, so of two texts that are equally likely per token the longer one has the lower score;
with `average_log_prob` it is the mean over the tokens, and the length does not count. There is no reference: with one
rejected text it is the loss of CPO (Xu et al. 2024, arXiv 2401.08417), with the mean that of SimPO (Meng et al. 2024,
arXiv 2405.14734) without its margin. Left out: their likelihood term, which `SFT` is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch

from agents.offline import Candidates, OfflineAlgorithm
from textgym.arguments import Named, Positive
from textgym.preferences.losses import info_nce_loss
from textgym.sb3 import TokenPolicy
from textgym.training import Episodes, TokenTerms
from textgym.training.preference_losses import pair_statistics, ranked_pairs


class ContrastiveLM(OfflineAlgorithm):
    """The contrastive loss of a language model: log-softmax of the candidates' sequence scores.

    Where candidates are drawn uniformly from all texts and the choices are those of a softmax of a reward (Luce, of two
    candidates Bradley-Terry), it is least where pi is exp(reward / beta) / Z. Only differences of scores count, so the
    likelihood of all candidates may fall.

    Logged in each update, as means over pairs of a chosen text and a rejected one: `rewards/chosen` and
    `rewards/rejected`, the scores; `rewards/margins`, their differences; `rewards/accuracies`, how often the margin is
    positive; and `logps/chosen` and `logps/rejected`, log pi of the texts, in nats.

    Example:
        >>> from agents import ContrastiveLM
        >>> pairs = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " a bore."}]
        >>> agent = ContrastiveLM("TokenPolicy", "TextGen-v0", dataset=pairs)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        dataset: pairs, as for `DPO`; rows that follow one another with the same prompt, the same chosen text and
            different rejected texts are one group. Needed to train, but not to evaluate a checkpoint, which does not
            hold it.
        beta: score per nat; the inverse of the softmax's temperature.
        average_log_prob: the score is beta times the mean of the tokens' log-probabilities, instead of their sum.
        **kwargs: see `OfflineAlgorithm`.
    """

    withheld: ClassVar[frozenset[str]] = OfflineAlgorithm.withheld | {"reference"}
    apart: ClassVar[frozenset[str]] = OfflineAlgorithm.apart - withheld

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        beta: Positive = 0.1,
        average_log_prob: bool = False,
        **kwargs: Any,
    ):
        self.beta, self.average_log_prob = beta, average_log_prob
        super().__init__(policy, env, model, **kwargs)

    def needs_reference(self) -> bool:
        """False: nothing is measured from one."""
        return False

    def candidates(self, dataset: Any) -> list[Candidates]:
        """A chosen text and those that were rejected in its favour, in each group."""
        groups: list[Candidates] = []
        for where, pair in self.preferences(dataset):
            last = groups[-1] if groups else None
            if last and (last.prompt, last.chosen) == (pair.prompt, pair.chosen) and pair.rejected not in last.rejected:
                groups[-1] = replace(last, rejected=(*last.rejected, pair.rejected))
            else:
                groups.append(Candidates(pair.prompt, pair.chosen, (pair.rejected,), where))
        return groups

    def scores(self, episodes: Episodes, log_probs: torch.Tensor) -> torch.Tensor:
        """The scores of E episodes, (E,) float64, from the policy's log-probabilities of their tokens, (E, T)."""
        sums = self.beta * log_probs.double().sum(-1)
        return sums / episodes.lengths if self.average_log_prob else sums

    def loss(self, scale: float, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T): all tokens of a chosen text have `scale` times the loss of its group."""
        scores, chosen = self.scores(episodes, terms.log_probs), episodes.rewards.sum(-1) > 0  # (B,)
        groups = episodes.prompt_ids
        rivals = (groups[chosen][:, None] == groups) & ~chosen  # (G, B)
        losses = info_nce_loss(scores[chosen], scores.expand_as(rivals), rivals)  # (G,)
        return torch.zeros_like(scores).masked_scatter(chosen, scale * losses)[:, None].expand_as(terms.log_probs), {}

    def step(self, episodes: Episodes) -> None:
        """A gradient step on the mean loss of the groups, and the log of it."""
        labels = episodes.rewards.sum(-1)  # (E,) 1 for chosen texts
        loss = partial(self.loss, len(episodes) / labels.sum().item())  # the mean over texts becomes that over groups
        log_probs = self.gradient_step(episodes, loss, "sequence", whole_groups=True)
        assert log_probs is not None
        pairs = ranked_pairs(episodes.prompt_ids, labels)
        for name, value in pair_statistics(pairs, self.scores(episodes, log_probs), log_probs).items():
            self.logger.record(name, value)
