"""Train the embedded model "tiny" and write its folder: `python scripts/pretrain_tiny.py --corpus corpus`.

In: the corpus that `tiny_corpus.py` makes. Out: a byte-level BPE tokenizer, a small Llama in bfloat16 and a model card,
whose every figure this run has measured. It is one plain loop on the CPU; checkpoints, logging and several devices are
left out, because the whole run takes under an hour.

A row is `BOS text EOS`. In half of the rows BOS is dropped, because the envs start from "The movie" alone and from BOS
alone for the empty prompt, and the model has to know both.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
import tyro
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

REPOSITORY = Path(__file__).resolve().parents[1]
SPECIAL = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}  # ids 0, 1, 2
PAD, BOS, EOS = range(3)
STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
MAX_TOKENS = 96  # longer rows are left out; an env's episode has 48
SAMPLES = 500
IGNORE = -100  # cross_entropy's mark for cells that are no target


@dataclass
class Args:
    """What to train."""

    corpus: Path = Path("corpus")
    """Holds `human.jsonl` and `sampled-*.jsonl`."""
    out: Path = REPOSITORY / "textgym" / "language_models" / "tiny"
    """Replaced as a whole when everything is done."""
    vocab_size: int = 3072
    hidden_size: int = 256
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 640
    epochs: int = 4
    batch_tokens: int = 3072
    learning_rate: float = 1e-2
    """AdamW's, for the embedding and the norms."""
    muon_learning_rate: float = 1e-2
    """Muon's, for all other matrices."""
    weight_decay: float = 0.1
    warmup: float = 0.05
    """Share of the steps; a cosine to a twentieth of `learning_rate` follows."""
    heldout_percent: int = 3
    judge: str = "smollm2-q4"
    """The model whose log-likelihood of samples, human and sampled sentences goes into the card."""
    seed: int = 0
    threads: int = 2


def clean(text: str) -> str | None:
    """Straight quotes and single spaces; None for what is then beyond ASCII (accents, mojibake) or very short."""
    text = re.sub(r"\s+", " ", text.translate(STRAIGHT).replace("''", '"')).strip()
    text = re.sub(r" ([.,!?;:])(?!\.)", r"\1", text)
    return text if text.isascii() and len(text) >= 8 else None


def read_corpus(folder: Path) -> dict[str, list[str]]:
    """Cleaned texts by source; a text occurs once, in the first source that has it."""
    files = {"human": [folder / "human.jsonl"], "sampled": sorted(folder.glob("sampled-*.jsonl"))}
    seen: set[str] = set()
    corpus: dict[str, list[str]] = {}
    for source, paths in files.items():
        lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
        texts = [text for line in lines if (text := clean(json.loads(line)["text"]))]
        corpus[source] = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(corpus[source])
    return corpus


def is_heldout(text: str, percent: int) -> bool:
    """By a hash of the text, so that the split does not depend on the corpus around it."""
    return int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4], "big") % 100 < percent


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE; words carry their leading space, so a prompt's tokens are a prefix of its sentence's."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL.values()), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=256, **SPECIAL)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """`BOS text EOS` of each text that fits."""
    rows = [[BOS, *row, EOS] for row in tokenizer(texts, add_special_tokens=False).input_ids]
    return [row for row in rows if len(row) <= MAX_TOKENS]


def batches(rows: list[list[int]], batch_tokens: int, rng: random.Random) -> Iterator[list[list[int]]]:
    """One epoch in batches of nearly equal length: `batch_tokens` cells each, few of them padding."""
    rows = [row[rng.getrandbits(1) :] for row in rows]  # half of them without BOS
    order = sorted(rows, key=lambda row: (len(row), rng.random()))
    cut: list[list[list[int]]] = []
    while order:
        count = max(1, batch_tokens // len(order[-1]))
        cut.append(order[-count:])
        del order[-count:]
    rng.shuffle(cut)
    yield from cut


def losses(model: LlamaForCausalLM, rows: list[list[int]]) -> torch.Tensor:
    """Nats of each next token, (B * (L - 1),), 0 at padding. Rows are padded at their end, so no mask is needed."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, IGNORE)  # (B, L)
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = model(input_ids=ids[:, :-1].clamp(min=0), use_cache=False).logits  # (B, L - 1, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=IGNORE, reduction="none")


def train(model: LlamaForCausalLM, rows: list[list[int]], heldout: dict[str, list[list[int]]], args: Args) -> int:
    """Warm-up, then a cosine; returns the number of steps."""
    rng = random.Random(args.seed)
    plan = [batch for _ in range(args.epochs) for batch in batches(rows, args.batch_tokens, rng)]
    optimizers = make_optimizers(model, args)
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


def make_optimizers(model: LlamaForCausalLM, args: Args) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    embedding = {"params": [model.model.embed_tokens.weight], "weight_decay": args.weight_decay}
    return [
        torch.optim.Muon(matrices, args.muon_learning_rate, args.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([embedding, {"params": norms, "weight_decay": 0.0}], args.learning_rate, betas=(0.9, 0.98)),
    ]


def rate(progress: float, warmup: float) -> float:
    """The learning rate as a share of its peak, after a share `progress` of the steps."""
    if progress < warmup:
        return progress / warmup + 1e-3
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@torch.inference_mode()
def total_nats(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Negative log-likelihood of all rows, in nats; a row's first token is given."""
    order = sorted(rows, key=len)
    return sum(losses(model, order[i : i + 32]).sum().item() for i in range(0, len(order), 32))


def nats_per_token(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Mean negative log-likelihood of a token."""
    return total_nats(model, rows) / sum(len(row) - 1 for row in rows)


def sample(model: LlamaForCausalLM, prompts: list[list[int]], max_new_tokens: int, seed: int) -> list[list[int]]:
    """A completion of each prompt at temperature 1, EOS included where it was drawn."""
    torch.manual_seed(seed)
    completions: list[list[int]] = []
    for i in range(0, len(prompts), 100):
        chunk = prompts[i : i + 100]
        width = max(map(len, chunk))
        ids = torch.tensor([[PAD] * (width - len(p)) + p for p in chunk])  # (B, P), right-aligned
        kwargs = {"do_sample": True, "top_k": 0, "max_new_tokens": max_new_tokens, "pad_token_id": PAD}
        drawn = model.generate(input_ids=ids, attention_mask=(ids != PAD).long(), **kwargs)[:, width:]
        completions += [[t for t in row if t != PAD] for row in drawn.tolist()]
    return completions


@torch.inference_mode()
def judge_log_likelihood(judge: str, groups: dict[str, list[str]]) -> dict[str, float]:
    """Mean log-likelihood per token that the judge gives to each group of texts, each behind an end-of-text token."""
    from textgym.language_models import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(judge, dtype="bfloat16")
    result = {}
    for name, texts in groups.items():
        rows = [[0, *ids] for ids in tokenizer(texts, add_special_tokens=False).input_ids]  # 0 is <|endoftext|>
        result[name] = -nats_per_token(model, rows)
    return result


def report(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: dict[str, list[str]],
    heldout: dict[str, list[str]],
    args: Args,
) -> tuple[dict[str, float], list[str], list[str]]:
    """Measure the finished model: the card's figures by name, samples from BOS alone, continued openings."""
    figures: dict[str, float] = {}
    for source, texts in heldout.items():
        rows = [[BOS, *row, EOS] for row in tokenizer(texts, add_special_tokens=False).input_ids]
        rows, texts = zip(*[(r, t) for r, t in zip(rows, texts, strict=True) if len(r) <= MAX_TOKENS], strict=True)
        figures[f"held-out nats per character, {source}"] = total_nats(model, list(rows)) / sum(map(len, texts))
        figures[f"held-out nats per token, {source}"] = nats_per_token(model, list(rows))
    free = tokenizer.batch_decode(sample(model, [[BOS]] * SAMPLES, 96, args.seed), skip_special_tokens=True)
    groups = {f"{source} sentences": random.Random(args.seed).sample(t, SAMPLES) for source, t in corpus.items()}
    for name, value in judge_log_likelihood(args.judge, {"samples of tiny": free, **groups}).items():
        figures[f"SmolLM2's mean log-likelihood per token, {SAMPLES} {name}"] = value
    openings = (REPOSITORY / "textgym" / "assets" / "reviews.txt").read_text(encoding="utf-8").splitlines()
    texts = [openings[i % len(openings)] for i in range(SAMPLES)]
    completions = sample(model, tokenizer(texts, add_special_tokens=False).input_ids, 32, args.seed)
    vader = SentimentIntensityAnalyzer()
    whole = [p + tokenizer.decode(c, skip_special_tokens=True) for p, c in zip(texts, completions, strict=True)]
    figures["tokens per completion of an opening (at most 32)"] = sum(map(len, completions)) / SAMPLES
    figures["share of completions that end by EOS"] = sum(c[-1] == EOS for c in completions) / SAMPLES
    compound = [vader.polarity_scores(text)["compound"] for text in whole]
    figures["VADER compound of opening + completion, mean"] = sum(compound) / SAMPLES
    return figures, free, whole


def shard_runs(folder: Path) -> list[tuple[int, int]]:
    """The shards of a corpus as runs of consecutive numbers, (first, count)."""
    runs: list[tuple[int, int]] = []
    for shard in sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("sampled-*.jsonl")):
        if runs and shard == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((shard, 1))
    return runs


def card(
    args: Args,
    model: LlamaForCausalLM,
    corpus: dict[str, list[str]],
    heldout: dict[str, list[str]],
    steps: int,
    figures: dict[str, float],
    free: list[str],
    whole: list[str],
) -> str:
    """MODEL_CARD.md."""
    sizes = "\n".join(f"| {s} | {len(t)} | {sum(map(len, t))} | {len(heldout[s])} |" for s, t in corpus.items())
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    shown = "\n".join(f"- {text}" for text in free[:10])
    continued = "\n".join(f"- {text}" for text in whole[:10])
    commands = "\n".join(
        f"    python scripts/tiny_corpus.py --out corpus --first-shard {first} --shards {count}"
        for first, count in shard_runs(args.corpus)
    )
    million = sum(p.numel() for p in model.parameters()) / 1e6
    return f"""# tiny

A {million:.1f}M-parameter Llama ({args.layers} layers, hidden size {args.hidden_size}, {args.vocab_size} byte-level BPE
tokens, bfloat16) that writes English movie-review sentences. TextGym's examples use it: it is small enough to be
trained by reinforcement learning on a CPU. It knows nothing else, and repeats the biases of its sources.

Made by

{commands}
    python scripts/pretrain_tiny.py --corpus corpus

in {steps} steps of {args.batch_tokens} tokens ({args.epochs} epochs; Muon with learning rate {args.muon_learning_rate},
AdamW with {args.learning_rate}; seed {args.seed}). That run has measured and written every figure and sample below.

## Corpus

| source | texts | characters | of these held out |
|---|---|---|---|
{sizes}

- human: movie-review sentences from the source distribution of vaderSentiment 3.3.2 (MIT licence).
- sampled: one-sentence reviews sampled from SmolLM2-135M-Instruct (Apache-2.0 licence).

Cleaning: straight quotes, single spaces, no space before punctuation; texts that are then not ASCII, have fewer than 8
characters, or occurred before are dropped, and so are rows of more than {MAX_TOKENS} tokens. A hash of the text decides
what is held out; neither the tokenizer nor the model has seen it.

## Measured

| figure | value |
|---|---|
{rows}

Samples are drawn at temperature 1 from the whole distribution, those that SmolLM2 reads from BOS alone.

The first ten, from BOS alone:

{shown}

The first ten that continue an opening of the default prompts, in at most 32 tokens:

{continued}
"""


def write_model(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights, config and tokenizer. The model keeps its dtype and the rounded weights, which is what ships."""
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(torch.float32)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which a wheel would keep
    tokenizer.save_pretrained(folder)
    # The class by the name that every release of transformers knows.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256, **SPECIAL}
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
    part = args.out.with_name(args.out.name + ".part")
    write_model(part, model, tokenizer)
    figures, free, whole = report(model, tokenizer, corpus, heldout, args)
    text = card(args, model, corpus, heldout, steps, figures, free, whole)
    (part / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    shutil.rmtree(args.out, ignore_errors=True)
    part.rename(args.out)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
