"""MODEL_CARD.md of the embedded model "tiny": all figures and samples are measured here, by the run that made it."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from scripts.tiny.arguments import REPOSITORY, Args
from scripts.tiny.likelihood import nats_per_token, total_nats
from scripts.tiny.text import BOS, EOS, MAX_TOKENS, PAD

SAMPLES = 500


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


CARD = """# tiny

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
characters, or occurred before are dropped, and so are rows of more than {max_tokens} tokens. A hash of the text decides
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
    """The text of MODEL_CARD.md."""
    sizes = "\n".join(f"| {s} | {len(t)} | {sum(map(len, t))} | {len(heldout[s])} |" for s, t in corpus.items())
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    shown = "\n".join(f"- {text}" for text in free[:10])
    continued = "\n".join(f"- {text}" for text in whole[:10])
    commands = "\n".join(
        f"    python scripts/tiny_corpus.py --out corpus --first-shard {first} --shards {count}"
        for first, count in shard_runs(args.corpus)
    )
    return CARD.format(
        args=args,
        million=sum(p.numel() for p in model.parameters()) / 1e6,
        commands=commands,
        steps=steps,
        sizes=sizes,
        rows=rows,
        shown=shown,
        continued=continued,
        max_tokens=MAX_TOKENS,
    )
