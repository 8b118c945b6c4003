"""What a scorer is given, made from texts, and asked for as an env asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from textgym.mdp import TextMDP
from textgym.prompt_table import PromptTable
from textgym.prompts import load_prompts
from textgym.scorers import Generations, Scorer
from textgym.scorers.base import FloatArray
from textgym.testing.rules import demand
from textgym.tokenizers import make_tokenizer


def make_generations(prompts: Sequence[Any], completions: Sequence[str], *, tokenizer: Any = "bytes") -> Generations:
    """Finished rows: prompt i, then completion i and an end-of-text token.

    Args:
        prompts: n texts, chats or dicts with columns, as `textgym.prompts.load_prompts` reads them.
        completions: n texts.
        tokenizer: see `textgym.tokenizers.make_tokenizer`; it must have an end-of-text token.

    Raises:
        ValueError: the lists differ in length, or a text does not suit the tokenizer.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts, but {len(completions)} completions")
    coder = make_tokenizer(tokenizer)
    if coder.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token to end the completions with")
    written = [[*coder.encode(text), coder.eos_token_id] for text in completions]
    contents = [prompt.content for prompt in load_prompts(list(prompts))]  # type: ignore[union-attr]
    texts = [c if isinstance(c, str) else coder.apply_chat_template(c) for c in contents]
    mdp = TextMDP(
        vocab_size=coder.vocab_size,
        max_prompt_tokens=max(1, *(len(coder.encode(text)) for text in texts)),
        max_new_tokens=max(map(len, written)),
        eos_token_ids=(coder.eos_token_id,),
        bos_token_id=coder.bos_token_id,
    )
    table, numbering = PromptTable(list(prompts), coder, mdp), np.arange(len(prompts))
    observations = table.observations(numbering).astype(np.int64)
    for row, ids in zip(observations, written, strict=True):
        row[mdp.max_prompt_tokens : mdp.max_prompt_tokens + len(ids)] = ids
    lengths, ended = mdp.completion_lengths(observations), np.ones(len(prompts), bool)
    return Generations(mdp, coder, table, observations, numbering, numbering, lengths, ended)


def values_of(scorer: Scorer, generations: Generations) -> FloatArray:
    """Rewards, then components, of finished rows: (1 + components, n).

    A token scorer is asked after every token, as an env does, and its values are (1 + components, n, T), 0 after a
    row's end.

    Raises:
        AssertionError: the scorer breaks its contract.
    """
    if not scorer.per_token:
        return values_of_call(scorer, generations)
    mdp, lengths = generations.mdp, generations.lengths
    values = np.zeros((1 + len(scorer.component_names), len(generations), mdp.max_new_tokens))
    for step in range(1, int(lengths.max()) + 1):
        asked = np.flatnonzero(lengths >= step)
        observations = generations.observations[asked]
        observations[:, mdp.max_prompt_tokens + step :] = mdp.pad_id
        reached, ended = np.full(len(asked), step), lengths[asked] == step
        now = replace(generations.select(asked), observations=observations, lengths=reached, ended=ended)
        values[:, asked, step - 1] = values_of_call(scorer, now)
    return values


def values_of_call(scorer: Scorer, generations: Generations) -> FloatArray:
    """Rewards, then components, of one call: (1 + components, n).

    Raises:
        AssertionError: they are not one finite float64 per row, not the components announced, or the scorer changed
            what it was given.
    """
    name, before = scorer.name, generations.observations.copy()
    scores = scorer.evaluate(generations)
    demand(np.array_equal(generations.observations, before), f"scorer {name!r} changed the observations it was given")
    reported = tuple(scores.components)
    demand(
        set(reported) == set(scorer.component_names),
        f"scorer {name!r} announces the components {scorer.component_names}, but reports {reported}",
    )
    rows = {"the rewards": scores.rewards} | {f"the component {c!r}": scores.components[c] for c in reported}
    for what, given in rows.items():
        kind = getattr(given, "dtype", type(given).__name__)
        demand(isinstance(given, np.ndarray) and kind == np.float64, f"scorer {name!r}: {what} are {kind}, not float64")
        shape = given.shape
        demand(shape == (len(generations),), f"scorer {name!r}: {what} of {len(generations)} rows have shape {shape}")
        finite = np.isfinite(given) | (np.isnan(given) & (what != "the rewards"))  # a component may not apply
        demand(finite.all(), f"scorer {name!r}: {what} are not finite: {given}")
    return np.stack([scores.rewards, *(scores.components[c] for c in scorer.component_names)])
