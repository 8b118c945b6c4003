"""A checkpoint as a plain model, adapters merged: `python scripts/export.py runs/x/checkpoint out/`.

The folder that is made holds float32 weights, their config and the tokenizer, and nothing of the training; whatever
reads transformers models reads it. A merged model whose logits are not the checkpoint's is not written.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from scripts.command_line import read_saved
from textgym.language_models import load_tokenizer
from textgym.language_models.loader import load_merged, no_progress_bars


@dataclass
class Args:
    """What to export, and where to."""

    model: tyro.conf.Positional[str]
    """A checkpoint directory, adapters, or any model: a name, a directory or a hub id."""
    out: tyro.conf.Positional[Path]
    """The folder to make; it must not exist."""


def main(args: Args) -> None:
    """Write the folder, whole or not at all."""
    if args.out.exists():
        raise FileExistsError(f"{str(args.out)!r} is there already; name a folder that is not")
    source, _ = read_saved(args.model)
    tokenizer, model = load_tokenizer(source), load_merged(source)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{args.out.name}-", dir=args.out.parent) as temporary:
        folder = Path(temporary) / "model"
        with no_progress_bars():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folder.rename(args.out)
    print(f"{model.num_parameters():,} parameters in {args.out}")
