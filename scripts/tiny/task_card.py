"""MODEL_CARD.md of the embedded model "tiny-tasks": all figures and samples are measured by the run that made it."""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM

from scripts.tiny.task_rows import CELLS, DEFAULT_LEVEL, EOS, FAMILIES, TOKENIZER, Cell, chance_of_right, pass_at
from textgym.prompts import Prompt

SAMPLES = 5

CARD = """# tiny-tasks

A {million:.2f}M-parameter Llama ({layers} layers, hidden size {hidden}, {vocab} tokens: characters and end-of-text,
bfloat16) for the tasks of TextGym that have a right answer. It is a start for reinforcement learning with verifiable
rewards on a CPU, so its training ended early on purpose: at the level that an id starts from (level {default}) it is
right in a fifth to a half of the cases, and much more often in one of 64 tries. It knows nothing else.

Made by

    python scripts/pretrain_tiny_tasks.py

in {steps} steps of at most {batch_tokens} tokens a family, {seconds:.0f} s of CPU time in all (Muon with learning
rate {muon_rate}, AdamW with {rate}, both falling; seed {seed}). A step has rows of every family that was not right
often enough when that was last measured, on held-out prompts, so that none runs ahead. These prompts were read for that
and for the end of the training, never learned from. That run has measured and written every figure and sample below.

## Data

{data}

A hash of each prompt decides what is held out, at every seed. Where two prompts ask the same (37+58 and 58+37, or a
number said in two ways), they are in the same part.

## Measured

On held-out prompts (`split="test"`, seed 0), in the family's env, at temperature 1: pass@k is the chance that at least
one of k completions is right, exact and not sampled (the probabilities of all right completions are summed).

| family | level | prompts | pass@1 | pass@4 | pass@16 | pass@64 |
|---|---|---|---|---|---|---|
{rows}

The first {samples} held-out prompts of each family, each with a sampled completion:

{shown}
"""


def sample(model: LlamaForCausalLM, cell: Cell, prompt: Prompt) -> str:
    """A completion in the family's env, at temperature 1."""
    allowed = cell.kwargs.get("allowed_tokens") or range(EOS + 1)
    banned = [token for token in range(EOS + 1) if token not in allowed]
    ids = torch.tensor([TOKENIZER.encode(str(prompt.content))])
    kwargs = {"do_sample": True, "top_k": 0, "max_new_tokens": cell.kwargs["max_new_tokens"], "pad_token_id": EOS}
    drawn = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), suppress_tokens=banned or None, **kwargs)
    return TOKENIZER.decode(drawn[0, ids.shape[1] :].tolist())


def card(model: LlamaForCausalLM, **run: float) -> str:
    """Measure the finished model, and write its card; `run` says how it was made."""
    rows, shown = [], []
    for cell in CELLS:
        prompts = cell.prompts("test", 0)
        chances = chance_of_right(model, cell, prompts)
        figures = " | ".join(f"{pass_at(chances, k):.3f}" for k in (1, 4, 16, 64))
        rows.append(f"| {cell.family} | {cell.level} | {len(prompts)} | {figures} |")
        if cell.level == DEFAULT_LEVEL:
            shown += [f"- `{p.content}` `{sample(model, cell, p)}`" for p in prompts[:SAMPLES]]
    data = "\n".join(f"- {name}: `{task.id}`, {task.summary}." for name, task in FAMILIES.items())
    return CARD.format(
        million=sum(p.numel() for p in model.parameters()) / 1e6,
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        vocab=model.config.vocab_size,
        default=DEFAULT_LEVEL,
        **run,
        data=data,
        rows="\n".join(rows),
        samples=SAMPLES,
        shown="\n".join(shown),
    )
