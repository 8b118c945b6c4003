"""Train the embedded model "tiny-tasks" and write its folder: `python scripts/pretrain_tiny_tasks.py`.

In: nothing but the prompts of the tasks, which are made from a seed. Out: a tokenizer of characters, a small Llama in
bfloat16 and a model card, whose every figure this run has measured. A row is a prompt and a right answer, and the loss
is that of the answer alone. Training ends early on purpose: the model is a start for reinforcement learning.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from scripts.tiny.task_training import Args, main

__all__ = ["Args", "main"]
