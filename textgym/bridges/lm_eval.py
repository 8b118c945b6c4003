"""Held-out likelihood of texts as a task of lm-eval: whether a policy has forgotten what its model could do."""

from __future__ import annotations

from typing import Any

from textgym.importing import require
from textgym.prompts import load_prompts

METRICS = "bits_per_byte", "byte_perplexity", "word_perplexity"


def held_out_task(texts: Any, name: str = "held_out") -> Any:
    """A task for `lm_eval.simple_evaluate(tasks=[...])`: how likely a model finds texts, each read from its start.

    Its metrics are lm-eval's `bits_per_byte`, `byte_perplexity` and `word_perplexity`, of all texts together. Bytes and
    words are the same for all models, whatever their tokenizers, so these can be compared. 1 / 8 of the first is the
    share of a byte that a text would take, compressed with the model.

    Args:
        texts: texts in any form that an env's `prompts` takes, such as a list, a `.txt` or `.jsonl` file, a
            `datasets.Dataset` with a column `prompt`, or `{"name": "reviews", "split": "test"}`. Training must not have
            seen them.
        name: what lm-eval calls the task.

    Returns:
        an `lm_eval.api.task.ConfigurableTask`.

    Raises:
        ValueError: a text is empty or a chat, or the texts come from a function, which has no end.
        ImportError: lm-eval is missing.
    """
    tasks = require("lm_eval.api.task", "lm-eval")
    datasets = require("datasets", "lm-eval")
    loaded = load_prompts(texts)
    if not isinstance(loaded, list):
        raise ValueError("the texts come from a function, which has no end; give a list of them")
    for i, prompt in enumerate(loaded):
        if not isinstance(prompt.content, str) or not prompt.content:
            raise ValueError(f"text {i} is {prompt.content!r}; it must be a text that is not empty")
    rows = datasets.Dataset.from_list([{"text": prompt.content} for prompt in loaded])
    config = {
        "task": name,
        "custom_dataset": lambda **_: {"test": rows},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": lambda doc: doc["text"],  # a template would read what stands in braces
        "metric_list": [{"metric": metric} for metric in METRICS],
        "metadata": {"version": 1},
    }
    return tasks.ConfigurableTask(config=config)
