"""The training of the embedded model "tiny": tokenizer, optimizers, one plain loop, and the folder that ships."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.tiny.arguments import Args
from scripts.tiny.card import card, report
from scripts.tiny.likelihood import losses, nats_per_token
from scripts.tiny.text import BOS, EOS, PAD, SPECIAL, batches, encode, is_heldout, read_corpus, train_tokenizer
from textgym.files import whole_folder


def train(model: LlamaForCausalLM, rows: list[list[int]], heldout: dict[str, list[list[int]]], args: Args) -> int:
    """Warm-up, then a cosine; returns the number of steps."""
    rng = random.Random(args.seed)
    plan = [batch for _ in range(args.epochs) for batch in batches(rows, args.batch_tokens, rng)]
    optimizers = make_optimizers(model, args.muon_learning_rate, args.learning_rate, args.weight_decay)
    schedules = [LambdaLR(o, lambda step: rate(step / len(plan), args.warmup)) for o in optimizers]
    start, running = time.perf_counter(), 0.0
    for step, batch in enumerate(plan, start=1):
        nats = losses(model, batch)
        loss = nats.sum() / (nats > 0).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        running += (loss.item() - running) * max(0.02, 1 / step)
        if step % 50 == 0:
            print(f"step {step}/{len(plan)} loss {running:.3f} {time.perf_counter() - start:.0f} s", flush=True)
        if step % (len(plan) // 4) == 0:
            print({source: round(nats_per_token(model, some), 4) for source, some in heldout.items()}, flush=True)
    return len(plan)


def make_optimizers(
    model: LlamaForCausalLM, muon_rate: float, rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    embedding = {"params": [model.model.embed_tokens.weight], "weight_decay": weight_decay}
    return [
        torch.optim.Muon(matrices, muon_rate, weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([embedding, {"params": norms, "weight_decay": 0.0}], rate, betas=(0.9, 0.98)),
    ]


def rate(progress: float, warmup: float) -> float:
    """The learning rate as a share of its peak, after a share `progress` of the steps."""
    if progress < warmup:
        return progress / warmup + 1e-3
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def write_model(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, special: dict[str, str]
) -> None:
    """Weights, config and tokenizer. The model keeps its dtype and the rounded weights, which is what ships."""
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(torch.float32)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which a wheel would keep
    tokenizer.save_pretrained(folder)
    # The class by the name that every release of transformers knows.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.max_position_embeddings,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(args: Args) -> None:
    """Tokenizer, training, measurements, folder."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    corpus = read_corpus(args.corpus)
    heldout = {s: [t for t in texts if is_heldout(t, args.heldout_percent)] for s, texts in corpus.items()}
    seen = [t for texts in corpus.values() for t in texts if not is_heldout(t, args.heldout_percent)]
    tokenizer = train_tokenizer(seen, args.vocab_size)
    rows = encode(tokenizer, seen)
    print(f"{len(seen)} texts, {sum(map(len, rows))} tokens", flush=True)
    config = LlamaConfig(
        vocab_size=args.vocab_size,
        hidden_size=args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        intermediate_size=args.intermediate_size,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config)
    encoded = {source: encode(tokenizer, texts) for source, texts in heldout.items()}
    steps = train(model, rows, encoded, args)
    model.eval()
    with whole_folder(args.out) as folder:
        write_model(folder, model, tokenizer, SPECIAL)
        figures, free, whole = report(model, tokenizer, corpus, heldout, args)
        text = card(args, model, corpus, heldout, steps, figures, free, whole)
        (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    print(text)
