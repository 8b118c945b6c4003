"""Supervised fine-tuning: maximum likelihood of texts, the start of most alignments and the plainest baseline."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from agents.offline import Candidates, OfflineAlgorithm
from textgym.arguments import Named
from textgym.sb3 import TokenPolicy
from textgym.training import Episodes, TokenTerms


class SFT(OfflineAlgorithm):
    """Maximum likelihood of the chosen texts; their prompts are given, and bring no loss.

    The loss is the mean over the minibatch's tokens of -log pi, EOS included. Where the model can be any distribution,
    it becomes that of the texts.

    Example:
        >>> from agents import SFT
        >>> pairs = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " a bore."}]
        >>> agent = SFT("TokenPolicy", "TextGen-v0", dataset=pairs)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        dataset: pairs, of which the chosen texts are learned, as for `DPO`. Needed to train, but not to evaluate a
            checkpoint, which does not hold it.
        **kwargs: see `OfflineAlgorithm`.
    """

    withheld: ClassVar[frozenset[str]] = OfflineAlgorithm.withheld | {"reference"}
    apart: ClassVar[frozenset[str]] = OfflineAlgorithm.apart - withheld

    def __init__(
        self, policy: str | type[TokenPolicy], env: Any, model: Named = None, *, dataset: Named = None, **kwargs: Any
    ):
        super().__init__(policy, env, model, dataset=dataset, **kwargs)

    def needs_reference(self) -> bool:
        """False: nothing is measured from one."""
        return False

    def candidates(self, dataset: Any) -> list[Candidates]:
        """The chosen texts, each alone."""
        return [Candidates(p.prompt, p.chosen, (), where) for where, p in self.preferences(dataset)]

    def step(self, episodes: Episodes) -> None:
        """A gradient step on the mean loss of the tokens."""
        self.gradient_step(episodes, self.loss)

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T)."""
        return -terms.log_probs, {}
