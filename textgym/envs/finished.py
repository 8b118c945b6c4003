"""Finished episodes that were written elsewhere: their rows, and a scorer asked about them as an env would ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from textgym.envs.task import TextTask
from textgym.mdp import IntArray, TextMDP
from textgym.scorers import Generations, Scorer, Scores
from textgym.scorers.base import refuse_unscored


def finished_rows(task: TextTask, prompt_ids: IntArray, completions: Sequence[Sequence[int]]) -> IntArray:
    """The last observations of n episodes, (n, P + T) int64.

    Args:
        task: the env's.
        prompt_ids: (n,) of its prompt table.
        completions: n lists of token ids; each is a whole episode, with its EOS or of T tokens.

    Raises:
        ValueError: episodes have several turns; or an env would have refused a token, ended the episode earlier, or not
            ended it yet.
    """
    task.mdp.refuse_turns("scoring written texts")
    rows = task.prompts.observations(prompt_ids).astype(np.int64)
    for i, (row, tokens) in enumerate(zip(rows, completions, strict=True)):
        if problem := _problem(task.mdp, np.asarray(tokens, np.int64)):
            raise ValueError(f"completion {i}, {list(tokens)}, is no episode of the env: {problem}")
        row[task.mdp.max_prompt_tokens :][: len(tokens)] = tokens
    return rows


def scores_by_step(
    task: TextTask, scorer: Scorer, rows: IntArray, prompt_ids: IntArray
) -> Iterator[tuple[IntArray, Generations, Scores]]:
    """The calls of a scorer as an env would make them: the numbers of the episodes, what it sees, and what it says.

    There is one call, of finished episodes, unless it pays per token; then there is one for every step.

    Args:
        task: the env's; its own scorer is not asked.
        scorer: the one that is.
        rows: (n, P + T) last observations.
        prompt_ids: (n,)

    Raises:
        ValueError: the scorer pays per token, and episodes have several turns.
        ScorerError: the scorer failed.
        IndexError: a prompt that a sampler brought is no longer known.
    """
    if scorer.per_token:
        task.mdp.refuse_turns(f"asking the scorer {scorer.name!r}, which pays per token, about written texts")
    lengths, start = task.mdp.completion_lengths(rows), task.mdp.max_prompt_tokens
    for step in range(1, lengths.max(initial=0) + 1) if scorer.per_token else [task.mdp.max_new_tokens]:
        moved = np.flatnonzero(lengths >= step) if scorer.per_token else np.arange(len(rows))
        seen, written = rows[moved], np.minimum(lengths[moved], step)
        seen[:, start + step :] = task.mdp.pad_id
        ended = written == lengths[moved]
        parts = task.mdp, task.tokenizer, task.prompts
        generations = Generations(*parts, seen, prompt_ids[moved], moved, written, ended, task.trainer)
        yield moved, generations, scorer.evaluate(generations)


def returns_of(task: TextTask, rows: IntArray, prompt_ids: IntArray) -> Scores:
    """The return of each episode and the totals of its components, as an env would have given them.

    Args:
        task: whose scorer is asked.
        rows: (n, P + T) last observations.
        prompt_ids: (n,)

    Raises:
        ScorerError: the scorer failed, or nothing applies to an episode.
    """
    returns = np.zeros(len(rows))
    totals = {name: np.zeros(len(rows)) for name in task.scorer.component_names}
    for moved, generations, scores in scores_by_step(task, task.scorer, rows, prompt_ids):
        refuse_unscored(task.scorer.name, scores.rewards, generations)
        returns[moved] += scores.rewards
        for name, values in scores.components.items():
            totals[name][moved] += values
    return Scores(returns, totals)


def _problem(mdp: TextMDP, tokens: IntArray) -> str:
    """Why tokens are no whole completion; "" if they are one."""
    if ((tokens < 0) | (tokens >= mdp.vocab_size)).any():
        return f"token ids run from 0 to {mdp.vocab_size - 1}"
    if not 0 < len(tokens) <= mdp.max_new_tokens:
        return f"it has {len(tokens)} tokens; max_new_tokens={mdp.max_new_tokens}"
    if (early := mdp.is_eos[tokens[:-1]]).any():
        return f"token {early.argmax()}, {tokens[early.argmax()]}, ends the text before its last token"
    if not (permitted := mdp.permits(np.arange(len(tokens)), tokens)).all():
        at = permitted.argmin()
        return f"token {at}, {tokens[at]}, is forbidden there (min_new_tokens, banned_tokens, allowed_tokens)"
    if len(tokens) < mdp.max_new_tokens and not mdp.is_eos[tokens[-1]]:
        return f"it ends neither with one of the end-of-text tokens {list(mdp.eos_token_ids)} nor by max_new_tokens"
    return ""
