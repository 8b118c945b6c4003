"""What exact solutions ask of an env: the size of its token tree, and its scorer's values for every action of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from textgym.contexts import check_enumerable
from textgym.envs.task import TextTask


def tree_sizes(env: Any) -> tuple[int, int]:
    """K and L of an env that `textgym.contexts` can number, that forbids no token and whose only prompt is BOS alone.

    Raises:
        ValueError: the env is another one, or too large.
    """
    task = getattr(env.unwrapped, "task", None)
    if not isinstance(task, TextTask):
        raise ValueError(f"{env} is not a TextGym env")
    mdp, prompts = task.mdp, task.prompts
    _, actions = check_enumerable(mdp)
    if mdp.restricted:
        raise ValueError(
            f"a TokenTree needs an env that forbids no token; this one has min_new_tokens={mdp.min_new_tokens}, "
            f"banned_tokens={mdp.banned_tokens} and allowed_tokens={mdp.allowed_tokens}"
        )
    first = prompts.observations(np.arange(prompts.num_prompts or 0))[:, 0]  # empty where prompts come from a function
    if not len(first) or (first != mdp.bos_token_id).any():
        raise ValueError("a TokenTree needs an env whose only prompt is the empty one: prompts=['']")
    return actions - 1, mdp.max_new_tokens


def score_actions(task: TextTask, contexts: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an env pays and reports for every action in contexts of one length, in one call of its scorer.

    Args:
        task: the env's task, of an env that `tree_sizes` accepts.
        contexts: (n, 1 + L) observations, all with the same number of tokens.

    Returns:
        (n, K + 1) float64 for every scorer component by name, and `"reward"`.
    """
    mdp = task.mdp
    length = int((contexts[0] != mdp.pad_id).sum())  # of a completion with its next action, because BOS counts too
    rows = contexts.repeat_interleave(mdp.vocab_size, 0).numpy()
    count = len(rows)
    rows[:, length] = actions = np.tile(np.arange(mdp.vocab_size), len(contexts))
    ended = mdp.is_eos[actions] | mdp.is_full[length]
    scores = task.score(rows, np.zeros(count, np.int64), np.arange(count), np.full(count, length), ended)
    columns = scores.components | {"reward": scores.rewards}
    return {name: torch.from_numpy(values).reshape(-1, mdp.vocab_size) for name, values in columns.items()}
