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
