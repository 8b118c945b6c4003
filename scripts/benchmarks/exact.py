"""How fast all answers of a language model are enumerated, beside asking about every context as a row of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from scripts.benchmarks.timing import peak_rss_mib, side_by_side
from textgym.arguments import Count
from textgym.exact import AnswerTree
from textgym.language_models.forward import logits_of, state_hidden
from textgym.tasks import TASKS
from textgym.training import TokenModel


def exact(
    env_id: str = "TextGenArithmetic-v0", prompts: Count = 64, row_prompts: Count = 4, repeats: Count = 3
) -> Iterator[dict[str, Any]]:
    """Time the log-probabilities and the rewards of all outcomes.

    Args:
        env_id: one whose answers can be enumerated, from which the model is taken, too.
        prompts: how many.
        row_prompts: for how many of them contexts are rows of their own, which takes longer.
        repeats: counted runs; medians are reported.
    """
    env = gym.make(env_id)
    tree = AnswerTree(env, np.arange(prompts))
    mdp = tree.task.mdp
    token_model = TokenModel(mdp, TASKS[env_id].model)
    ended = tree.outcomes[torch.from_numpy(mdp.is_eos[tree.outcomes.clamp(max=mdp.vocab_size - 1)]).any(-1)]
    contexts = ended.masked_fill(torch.isin(ended, tree.eos_tokens), mdp.pad_id).unique(dim=0)
    starts = torch.from_numpy(tree.task.prompts.observations(tree.prompt_ids)).long()

    def by_tree() -> int:
        return tree.log_probs(token_model).shape[0] * tree.num_contexts

    @torch.no_grad()
    def by_row() -> int:
        for start in starts[:row_prompts]:
            rows = start.repeat(len(contexts), 1)
            rows[:, mdp.max_prompt_tokens :] = contexts
            logits = logits_of(token_model.model, state_hidden(token_model.model, mdp, rows), mdp.vocab_size)
            token_model.distribution.log_probs(logits, (contexts != mdp.pad_id).sum(-1))
        return min(row_prompts, prompts) * len(contexts)

    def scored() -> int:
        return tree.scores()["reward"].numel()

    timings = side_by_side({"tree": by_tree, "rows": by_row, "scores": scored}, repeats)
    seconds = {name: timing.cpu_seconds for name, timing in timings.items()}
    yield {
        "benchmark": "exact",
        "env_id": env_id,
        "prompts": prompts,
        "contexts_per_prompt": tree.num_contexts,
        "outcomes_per_prompt": tree.num_outcomes,
        "contexts_per_second": {name: round(1 / seconds[name]) for name in ("tree", "rows")},
        "ratio_to_rows": round(seconds["rows"] / seconds["tree"], 2),
        "outcomes_scored_per_second": round(1 / seconds["scores"]),
        "cpu_seconds": round(
            prompts * (tree.num_contexts * seconds["tree"] + tree.num_outcomes * seconds["scores"]), 2
        ),
        "peak_memory_mib": peak_rss_mib(),
    }
