"""What a step of reward-model training costs, beside a plain transformers and torch step on the same pairs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from agents import RewardModelTrainer
from scripts.benchmarks.bench import Lengths
from scripts.benchmarks.timing import rates, side_by_side, synchronized
from textgym.arguments import Count

WORDS = "the film is a story of love and good people in an old town with no end but".split()
"""Each one token for most tokenizers."""


def reward_model(
    model: str = "tiny",
    pairs: Count = 8,
    lengths: tuple[Lengths, ...] = ("equal", "ragged"),
    prompt_words: Count = 8,
    new_words: Count = 32,
    bare: bool = True,
    device: str = "cpu",
    repeats: Count = 15,
) -> Iterator[dict[str, Any]]:
    """Tokens per second of a gradient step on pairs (Bradley and Terry's loss), and of a bare one.

    The bare step pads all texts to the longest one, and takes a forward, backward, clipping and Adam step.

    Args:
        model: what gets a head, by the names of `RewardModelTrainer`.
        pairs: in a step.
        lengths: equal, or geometric with a mean near a third of the limit.
        prompt_words: of every prompt.
        new_words: the limit of what follows it.
        bare: measure bare steps too; without, the peak memory is that of TextGym alone.
        device: `cpu` or `cuda`.
        repeats: steps that are counted.
    """
    for kind in lengths:
        data = random_pairs(pairs, prompt_words, new_words, kind == "ragged")
        trainer = RewardModelTrainer(model, data, device=device, seed=0)
        rows = [torch.tensor(ids) for (ids,) in trainer._tokens]
        tokens, index = sum(map(len, rows)), np.arange(pairs)

        def ours(trainer: Any = trainer, index: Any = index, tokens: int = tokens) -> int:
            trainer._train(index, 1.0)
            return synchronized(trainer.model.device, tokens)

        runs: dict[str, Callable[[], int]] = {"textgym": ours}
        if bare:
            runs["bare"] = BareStep(trainer, rows)
        timings = side_by_side(runs, repeats, warm_up=2)
        yield {
            "benchmark": "reward_model",
            "model": model,
            "pairs": pairs,
            "lengths": kind,
            "tokens": tokens,
            "device": device,
            "threads": torch.get_num_threads(),
            **rates(timings, trainer.model.device),
        }


class BareStep:
    """A step of training without a library; a call returns the number of tokens.

    Args:
        trainer: whose model, as it is, and learning rate are taken.
        rows: the chosen text of each pair and then the rejected one, as token ids.
    """

    def __init__(self, trainer: RewardModelTrainer, rows: list[torch.Tensor]):
        self.model, self.rows = copy.deepcopy(trainer.model.module), rows[0::2] + rows[1::2]
        self.pad, self.center = trainer.model.tokenizer.pad_token_id, trainer.objective.center_rewards_coefficient
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=trainer.learning_rate)

    def __call__(self) -> int:
        """Forward, backward and a step."""
        device = next(self.model.parameters()).device
        ids = pad_sequence(self.rows, batch_first=True, padding_value=self.pad).to(device)
        lengths = torch.tensor([len(row) for row in self.rows], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        chosen, rejected = self.model(input_ids=ids, attention_mask=mask.long()).logits[:, 0].chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected) + self.center * (chosen + rejected) ** 2
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return synchronized(device, int(lengths.sum()))


def random_pairs(pairs: int, prompt_words: int, new_words: int, ragged: bool) -> list[dict[str, str]]:
    """Pairs of texts of random words.

    Args:
        pairs: how many.
        prompt_words: of every prompt.
        new_words: of every completion, or where lengths differ their limit.
        ragged: whether they do.
    """
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(3 / new_words if ragged else 1e-9, (pairs, 2)), new_words)

    def text(words: int) -> str:
        return "".join(f" {word}" for word in rng.choice(WORDS, words))

    return [{"prompt": text(prompt_words), "chosen": text(a), "rejected": text(b)} for a, b in lengths]
