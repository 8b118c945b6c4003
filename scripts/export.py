"""A checkpoint as a plain model, adapters merged: `python scripts/export.py runs/x/checkpoint out/`.

The folder that is made holds float32 weights, their config and the tokenizer, and nothing of the training; whatever
reads transformers models reads it. A merged model whose logits are not the checkpoint's is not written. README.md in it
is a model card (docs/publish.md). Nothing is uploaded; the command for that is printed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from scripts.command_line import console, read_saved
from scripts.model_cards import Exported, base_of, card, read_evaluation
from textgym.language_models import load_tokenizer
from textgym.language_models.loader import load_merged, no_progress_bars


@dataclass
class Args:
    """What to export, and where to."""

    model: tyro.conf.Positional[str]
    """A checkpoint directory, adapters, or any model: a name, a directory or a hub id."""
    out: tyro.conf.Positional[Path]
    """The folder to make; it must not exist."""
    evaluation: Path | None = None
    """What `scripts/evaluate.py --json` wrote; by default `evaluation.json` in the run's folder, if it is no older."""
    base_model: str | None = None
    """What it was trained from, for the card; by default the model of the adapters, or the reference."""
    license: str | None = None
    """The card's, as the hub abbreviates it (`mit`); by default the base model's, where that is known."""


def main(args: Args) -> None:
    """Write the folder, whole or not at all."""
    if args.out.exists():
        raise FileExistsError(f"{str(args.out)!r} is there already; name a folder that is not")
    source, state = read_saved(args.model)
    evaluation = args.evaluation or newer_evaluation(args.model, source)
    about = Exported(
        args.out.name,
        args.base_model or base_of(Path(source), state),
        args.license,
        Path(source),
        state,
        read_evaluation(evaluation) if evaluation else None,
    )
    written = card(about)
    tokenizer, model = load_tokenizer(source), load_merged(source)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{args.out.name}-", dir=args.out.parent) as temporary:
        folder = Path(temporary) / "model"
        with no_progress_bars():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        written.save(folder / "README.md")
        folder.rename(args.out)
    how = f"scripts/evaluate.py --model {args.model} --json FILE measures them, and --evaluation FILE takes them"
    measured = f"the numbers of {evaluation}" if evaluation else f"no numbers: {how}"
    tell(f"{model.num_parameters():,} parameters in {args.out}; its README.md has {measured}")
    tell(f"to publish it: hf upload YOUR_NAME/{args.out.name} {args.out}")


def tell(line: str) -> None:
    """Print a line, however long."""
    console.print(line, soft_wrap=True)


def newer_evaluation(model: str, checkpoint: str) -> Path | None:
    """`evaluation.json` beside the checkpoint, if there is one that is no older than it."""
    file, state = Path(model).parent / "evaluation.json", Path(checkpoint) / "algorithm.json"
    fresh = file.is_file() and state.is_file() and file.stat().st_mtime >= state.stat().st_mtime
    return file if fresh else None
