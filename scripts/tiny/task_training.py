"""The training of the embedded model "tiny-tasks": all families at once, each only until it is right often enough."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.tiny.arguments import REPOSITORY
from scripts.tiny.pretrain import make_optimizers, write_model
from scripts.tiny.task_card import card
from scripts.tiny.task_rows import (
    CELLS,
    DEFAULT_LEVEL,
    EOS,
    FAMILIES,
    IGNORE,
    LEVELS,
    TOKENIZER,
    Cell,
    chance_of_right,
    padded,
    pass_at,
    right_answers,
)
from textgym.files import whole_folder

LAST_RATE = 0.2
"""What the learning rates fall to, as a share of their value."""
SPECIAL = {"bos_token": "<eos>", "eos_token": "<eos>", "pad_token": "<eos>"}


@dataclass
class Args:
    """What to train."""

    out: Path = REPOSITORY / "textgym" / "language_models" / "tiny-tasks"
    """Replaced as a whole when everything is done."""
    hidden_size: int = 128
    """Width of the model."""
    layers: int = 3
    """Number of its blocks."""
    heads: int = 4
    """Attention heads of a block."""
    intermediate_size: int = 384
    """Width of a block's feed-forward part."""
    batch_tokens: int = 768
    """Tokens of each family in a step, all at one level."""
    other_levels: float = 0.15
    """How often another level is drawn than that which an id starts from, relative to it."""
    learning_rate: float = 5e-3
    """AdamW's, for the embedding and the norms."""
    muon_learning_rate: float = 5e-3
    """Muon's, for all other matrices."""
    weight_decay: float = 0.1
    """Of all matrices."""
    warmup: int = 50
    """Steps in which the learning rates rise to their value."""
    decay: int = 800
    """Steps in which they then fall to the last ones."""
    enough: float = 0.38
    """A family that is right so often, at the level that its id starts from, is left out until it has fallen below."""
    interval: int = 10
    """Steps between two looks at how often the model is right."""
    least: float = 0.25
    """Training ends when every family is right at least so often, and at most as often as `most`."""
    most: float = 0.5
    """No family is to be right more often than this at the end."""
    max_steps: int = 2000
    """Training ends here at the latest."""
    seed: int = 0
    """Of everything that is drawn; the same one gives the same numbers on one machine."""
    threads: int = 1
    """CPU threads of torch."""


def make_model(args: Args) -> LlamaForCausalLM:
    """The untrained model."""
    config = LlamaConfig(
        vocab_size=EOS + 1,
        hidden_size=args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        intermediate_size=args.intermediate_size,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def rate(step: int, args: Args) -> float:
    """The learning rates as a share of their value."""
    return min(1.0, (step + 1) / args.warmup) * max(LAST_RATE, 1 - (1 - LAST_RATE) * step / args.decay)


def train(model: LlamaForCausalLM, args: Args) -> int:
    """Steps of the families that are not right often enough, until all are; returns the number of steps."""
    rng = random.Random(args.seed)
    data = {cell: cell.prompts("train", args.seed) for cell in CELLS}
    check = {cell: cell.prompts("test", args.seed + 1)[:64] for cell in CELLS if cell.level == DEFAULT_LEVEL}
    rows = {cell: args.batch_tokens // (8 + max(len(str(p.content)) for p in data[cell])) for cell in CELLS}
    optimizers = make_optimizers(model, args.muon_learning_rate, args.learning_rate, args.weight_decay)
    schedules = [LambdaLR(optimizer, lambda step: rate(step, args)) for optimizer in optimizers]
    families = list(FAMILIES)
    for step in range(1, args.max_steps + 1):
        for family in families:
            (level,) = rng.choices(LEVELS, [1.0 if level == DEFAULT_LEVEL else args.other_levels for level in LEVELS])
            cell = Cell(family, level)
            prompts = rng.choices(data[cell], k=rows[cell])
            ids, targets = padded([(str(p.content), rng.choice(right_answers(p))) for p in prompts])
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # (B, L - 1, V)
            loss = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORE)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        if step % args.interval == 0:
            right = {cell.family: pass_at(chance_of_right(model, cell, prompts), 1) for cell, prompts in check.items()}
            print(step, {family: round(value, 3) for family, value in right.items()}, flush=True)
            if args.least <= min(right.values()) and max(right.values()) <= args.most:
                return step
            behind = [family for family in FAMILIES if right[family] < args.enough]
            families = behind or [min(right, key=right.__getitem__)]
    raise RuntimeError(f"after {args.max_steps} steps it is right too seldom or too often: {right}")


def main(args: Args) -> None:
    """Training, folder, measurements."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = make_model(args)
    start = time.process_time()
    steps = train(model, args)
    seconds = time.process_time() - start
    with whole_folder(args.out) as folder:
        write_model(folder, model.eval(), TOKENIZER.to_pretrained(), SPECIAL)
        run = {"muon_rate": args.muon_learning_rate, "rate": args.learning_rate, "seed": args.seed}
        text = card(model, steps=steps, seconds=seconds, batch_tokens=args.batch_tokens, **run)
        (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    print(text)
