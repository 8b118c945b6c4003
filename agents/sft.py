"""Supervised fine-tuning: maximum likelihood of texts, the start of most alignments and the plainest baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from agents.offline import Candidates, OfflineAlgorithm, places
from textgym.preferences.data import first_columns, read_demonstrations
from textgym.training import Episodes, TokenTerms


class SFT(OfflineAlgorithm):
    """Maximum likelihood of given texts; their prompts bring no loss.

    The loss is the mean over the minibatch's tokens of -log pi, EOS included. Where the model can be any distribution,
    it becomes that of the texts.

    Example:
        >>> from agents import SFT
        >>> texts = [{"prompt": "The film was", "completion": " a joy."}]
        >>> agent = SFT("TokenPolicy", "TextGen-v0", dataset=texts)  # doctest: +SKIP
        >>> agent.learn(total_timesteps=50_000)  # doctest: +SKIP

    Args:
        dataset: a file of JSON lines, a `datasets.Dataset`, or an iterable of mappings, with the columns of TRL's
            prompt-completion or language-modelling format, `prompt` and `completion`, or `text`
            (`textgym.preferences.read_demonstrations`); or pairs as for `DPO`, of which the chosen texts are learned.
            Needed to train, but not to evaluate a checkpoint, which does not hold it.
        **kwargs: see `OfflineAlgorithm`.
    """

    withheld: ClassVar[frozenset[str]] = OfflineAlgorithm.withheld | {"reference"}
    apart: ClassVar[frozenset[str]] = OfflineAlgorithm.apart - withheld

    def needs_reference(self) -> bool:
        """False: nothing is measured from one."""
        return False

    def candidates(self, dataset: Any) -> list[Candidates]:
        """The texts, each alone."""
        dataset = list(dataset) if isinstance(dataset, Iterator) else dataset
        columns = first_columns(dataset, "dataset")
        if "chosen" in columns and "completion" not in columns:
            return [Candidates(p.prompt, p.chosen, (), where) for where, p in self.preferences(dataset)]
        texts = read_demonstrations(dataset, "dataset", tokenizer=self.task.tokenizer)
        return [Candidates(t.prompt, t.completion, (), where) for where, t in zip(places(dataset), texts, strict=False)]

    def step(self, episodes: Episodes) -> None:
        """A gradient step on the mean loss of the tokens."""
        self.gradient_step(episodes, self.loss)

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T)."""
        return -terms.log_probs, {}
