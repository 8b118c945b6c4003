"""Write a run as one HTML page: `python scripts/report.py runs/mine`.

The page opens in any browser without a network: the numbers of the last evaluation, reward, KL, entropy and length over
the training, texts over time (`train.py --eval-freq`), and texts of the newest checkpoint with each token's part of the
KL to the reference and its credit, the part of the reward that is owed to it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scripts.command_line import console
from scripts.policies import ModelArgs, load
from scripts.reports.heat import heat_of
from scripts.reports.page import page
from scripts.reports.runs import read_run
from textgym.arguments import Range


@dataclass
class Args:
    """What to write."""

    run: tyro.conf.Positional[Path]
    """Folder of a run."""
    out: Path | None = None
    """The file; by default `report.html` in the folder."""
    texts: Annotated[int, Range(0)] = 8
    """Texts that are shown token by token; 0 loads no model."""
    credit_samples: Annotated[int, Range(0)] = 4
    """Tokens that are tried in the place of each; the scorer judges a text for each of them. 0 shows no credit."""
    trust: bool = False
    """Import the modules that the checkpoint's env names."""


def main(args: Args) -> Path:
    """Write the page."""
    run, heat, out = read_run(args.run), None, args.out or args.run / "report.html"
    if args.texts and run.state.get("reference_kept", "none") != "none":
        model = ModelArgs(str(args.run / "checkpoint"), trust=args.trust)
        policy = load(model, args.texts, {"num_generations": 1}).policy()
        heat = heat_of(policy, args.texts, args.credit_samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(run, heat), encoding="utf-8")
    console.print(f"written: {out}", soft_wrap=True)
    return out
