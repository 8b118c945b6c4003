"""What the embedded model "tiny-tasks" learns from and is measured on: prompts of the tasks, as rows of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM

from textgym.prompts import Prompt, load_prompts
from textgym.tasks import TASKS
from textgym.tasks.base import TINY_TASKS_ALPHABET
from textgym.tokenizers import character_tokenizer

FAMILIES = {name: TASKS[f"TextGen{name.title()}-v0"] for name in ("arithmetic", "countdown", "numerals", "summary")}
LEVELS = (1, 2, 3)
DEFAULT_LEVEL = 2
TOKENIZER = character_tokenizer(TINY_TASKS_ALPHABET)
EOS = len(TINY_TASKS_ALPHABET)
IGNORE = -100  # cross_entropy's mark for cells that are no target


@dataclass(frozen=True)
class Cell:
    """One family at one level."""

    family: str
    level: int

    def prompts(self, split: str, seed: int, size: int | None = None) -> list[Prompt]:
        """Prompts of a part."""
        source = {"name": self.family, "level": self.level, "split": split, "seed": seed}
        prompts = load_prompts(source | ({} if size is None else {"size": size}))
        assert isinstance(prompts, list)
        return prompts

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of the family's env."""
        return dict(FAMILIES[self.family].kwargs)


CELLS = [Cell(family, level) for family in FAMILIES for level in LEVELS]


def right_answers(prompt: Prompt) -> list[str]:
    """Every completion that is right."""
    reference = prompt.columns["reference"]
    return [reference] if isinstance(reference, str) else reference


def padded(rows: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and answers as (n, L) token ids, padded at their end, and the (n, L) targets: answers and EOS alone."""
    prompts = [TOKENIZER.encode(prompt) for prompt, _ in rows]
    answers = [[*TOKENIZER.encode(answer), EOS] for _, answer in rows]
    whole = [torch.tensor(p + a) for p, a in zip(prompts, answers, strict=True)]
    wanted = [torch.tensor([IGNORE] * len(p) + a) for p, a in zip(prompts, answers, strict=True)]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(whole, True, EOS), pad(wanted, True, IGNORE)


@torch.inference_mode()
def chance_of_right(model: LlamaForCausalLM, cell: Cell, prompts: Sequence[Prompt]) -> torch.Tensor:
    """The exact probability of a right completion in the family's env for each prompt, (n,) float64.

    Only the env's allowed tokens count, and an answer as long as the env's limit needs no EOS.
    """
    rows = [(i, str(p.content), answer) for i, p in enumerate(prompts) for answer in right_answers(p)]
    result = torch.zeros(len(prompts), dtype=torch.float64)
    allowed, limit = cell.kwargs.get("allowed_tokens"), cell.kwargs["max_new_tokens"]
    for start in range(0, len(rows), 256):
        chunk = rows[start : start + 256]
        ids, targets = padded([(prompt, answer) for _, prompt, answer in chunk])
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits.double()  # (B, L - 1, V)
        if allowed is not None:
            logits[..., [token for token in range(logits.shape[-1]) if token not in allowed]] = -torch.inf
        wanted = targets[:, 1:]  # (B, L - 1)
        log_probs = logits.log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        counts = (wanted != IGNORE) & ((wanted != IGNORE).cumsum(-1) <= limit)
        total = torch.where(counts, log_probs, 0.0).sum(-1).exp()
        result.index_add_(0, torch.tensor([i for i, _, _ in chunk]), total)
    return result


def pass_at(chances: torch.Tensor, k: int) -> float:
    """The chance that one of k completions is right, mean over the prompts."""
    return (1 - (1 - chances) ** k).mean().item()
