"""The texts of the embedded model "tiny": cleaning, the held-out split, the tokenizer, and batches of token ids."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}  # ids 0, 1, 2
PAD, BOS, EOS = range(3)
STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
MAX_TOKENS = 96  # longer rows are left out; an env's episode has 48


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
    """Whether a text is held out: by its hash, so that the split does not depend on the corpus around it."""
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
