"""Train the embedded model "tiny" and write its folder: `python scripts/pretrain_tiny.py --corpus corpus`.

In: the corpus that `tiny_corpus.py` makes. Out: a byte-level BPE tokenizer, a small Llama in bfloat16 and a model card,
whose every figure this run has measured. It is one plain loop on the CPU; checkpoints, logging and several devices are
left out, because the whole run takes under an hour.

A row is `BOS text EOS`. In half of the rows BOS is dropped, because the envs start from "The movie" alone and from BOS
alone for the empty prompt, and the model has to know both.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from scripts.tiny.arguments import Args
from scripts.tiny.pretrain import main

__all__ = ["Args", "main"]
