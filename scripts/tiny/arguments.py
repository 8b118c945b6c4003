"""The arguments of `scripts/pretrain_tiny.py`, which the training and the card read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Args:
    """What to train."""

    corpus: Path = Path("corpus")
    """Holds `human.jsonl` and `sampled-*.jsonl`."""
    out: Path = REPOSITORY / "textgym" / "language_models" / "tiny"
    """Replaced as a whole when everything is done."""
    vocab_size: int = 3072
    """Tokens of the byte-level BPE tokenizer."""
    hidden_size: int = 256
    """Width of the model."""
    layers: int = 4
    """Number of its blocks."""
    heads: int = 4
    """Attention heads of a block."""
    intermediate_size: int = 640
    """Width of a block's feed-forward part."""
    epochs: int = 4
    """Passes over the corpus."""
    batch_tokens: int = 3072
    """Tokens of a step."""
    learning_rate: float = 1e-2
    """AdamW's, for the embedding and the norms."""
    muon_learning_rate: float = 1e-2
    """Muon's, for all other matrices."""
    weight_decay: float = 0.1
    """Of all matrices."""
    warmup: float = 0.05
    """Share of the steps; a cosine to a twentieth of `learning_rate` follows."""
    heldout_percent: int = 3
    """Of the sentences, kept for the card's figures."""
    judge: str = "smollm2-q4"
    """The model whose log-likelihood of samples, human and sampled sentences goes into the card."""
    seed: int = 0
    """Of everything that is drawn; the same one gives the same numbers on one machine."""
    threads: int = 2
    """CPU threads of torch."""
