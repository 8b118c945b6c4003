"""Conformance checks that users run on their own scorers and envs, in their own tests.

`check_scorer` and `check_env` raise an `AssertionError` that names what is wrong, and return nothing if all is well.
`make_generations` builds what a scorer is given, from texts. Left out: rendering (the mode `"human"` would write to the
terminal), and whether a reward makes sense.
"""

from __future__ import annotations

import itertools
import numbers
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from textgym.mdp import IntArray, TextMDP
from textgym.prompt_table import PromptTable
from textgym.prompts import load_prompts
from textgym.scorers import Generations, Scorer, Scores, make_scorer
from textgym.scorers.base import FloatArray
from textgym.tokenizers import make_tokenizer

PROMPTS = ("The film was", "", "It is a")
COMPLETIONS = ("", " good", " a good, good film.", "abab?")


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


def check_scorer(
    scorer: Any,
    *,
    prompts: Sequence[Any] = PROMPTS,
    completions: Sequence[str] = COMPLETIONS,
    tokenizer: Any = "bytes",
    tolerance: float = 1e-4,
    pickles: bool = False,
) -> None:
    """Check that a scorer keeps its contract, on every pair of a prompt and a completion.

    One finite float per row and component, also for an empty completion; the same values when asked again, in another
    order, or one row at a time; nothing paid to rows that have not ended, unless it pays per token; and its arguments
    left as they are. A token scorer is asked token by token, as an env does.

    Args:
        scorer: anything that `make_scorer` accepts.
        prompts: as `make_generations` takes them; give the columns that the scorer reads.
        completions: texts.
        tokenizer: see `textgym.tokenizers.make_tokenizer`.
        tolerance: absolute and relative, for what floating point does to another batch.
        pickles: check that a pickled copy gives the same values.

    Raises:
        AssertionError: the contract is broken; the message says where.
        ValueError: the scorer is none, or a component of it has a name that it cannot have (see `make_scorer`).
        ScorerError: the scorer failed, or its values are not one finite float per row.
    """
    built = make_scorer(scorer)
    names = built.component_names
    _require(len(set(names)) == len(names), f"scorer {built.name!r} has component names twice: {names}")
    pairs = list(itertools.product(prompts, completions))
    batch = make_generations([prompt for prompt, _ in pairs], [text for _, text in pairs], tokenizer=tokenizer)
    values = _play(built, batch)

    def same(index: Any, when: str, other: Scorer = built) -> None:
        part = batch.select(index)
        _compare(built.name, part, values[:, index], _play(other, part), tolerance, when)

    everything = np.arange(len(batch))
    same(everything, "asked again")
    same(everything[::-1], "with the rows in reverse order")
    for row in everything:
        same(np.array([row]), "evaluated alone")
    if pickles:
        same(everything, "pickled and unpickled", pickle.loads(pickle.dumps(built)))
    if not built.per_token:
        _check_unfinished(built, batch)


def check_env(env: gym.Env[Any, Any], *, episodes: int = 4, seed: int = 0) -> None:
    """Check a single text env: Gymnasium's own checks, warnings being errors, then the MDP's rules on random episodes.

    The rules: an observation grows only at its end, and is a copy; an episode terminates exactly at an EOS id or at the
    T-th token, and is never truncated; nothing is paid before that, unless the scorer pays per token; `info` holds
    numbers only, and every component at the end; a seed reproduces its episode; stepping past the end raises
    `ResetNeeded`.

    Where tokens are restricted, Gymnasium's own checks are left out, because they act without regard to a mask.

    Args:
        env: the env, wrapped or not; the wrappers are not checked.
        episodes: number of random episodes; every other one may end early by EOS.
        seed: seeds the actions and the resets.

    Raises:
        AssertionError: a rule is broken.
    """
    base: Any = env.unwrapped
    for name in ("mdp", "scorer"):
        _require(hasattr(base, name), f"{type(base).__name__} has no attribute {name!r}")
    mdp: TextMDP = base.mdp
    _require(base.observation_space == mdp.observation_space, f"the observation space is not {mdp.observation_space}")
    _require(base.action_space == mdp.action_space, f"the action space is not {mdp.action_space}")
    if not mdp.restricted:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gymnasium_check_env(base, skip_render_check=True)
    for episode in range(episodes):
        first = _episode(base, seed + episode, early=episode % 2 == 1)
        again = _episode(base, seed + episode, early=episode % 2 == 1)
        _require(np.array_equal(first[0], again[0]), f"seed {seed + episode} does not reproduce its observations")
        _require(np.allclose(first[1], again[1]), f"seed {seed + episode} does not reproduce its rewards")


def _play(scorer: Scorer, generations: Generations) -> FloatArray:
    """Rewards, then components, asked for step by step as an env does; (1 + components, n, T), 0 where not asked."""
    mdp, lengths = generations.mdp, generations.lengths
    values = np.zeros((1 + len(scorer.component_names), len(generations), mdp.max_new_tokens))
    for step in range(1, mdp.max_new_tokens + 1):
        asked = np.flatnonzero(lengths >= step if scorer.per_token else lengths == step)
        if not asked.size:
            continue
        observations = generations.observations[asked]
        observations[:, mdp.max_prompt_tokens + step :] = mdp.pad_id
        reached, ended = np.full(len(asked), step), lengths[asked] == step
        now = replace(generations.select(asked), observations=observations, lengths=reached, ended=ended)
        before = observations.copy()
        values[:, asked, step - 1] = _stack(scorer, scorer.evaluate(now), len(now))
        _require(np.array_equal(observations, before), f"scorer {scorer.name!r} changed the observations it was given")
    return values


def _stack(scorer: Scorer, scores: Scores, count: int) -> FloatArray:
    """Rewards, then components, checked; (1 + components, count)."""
    name, reported = scorer.name, tuple(scores.components)
    _require(
        set(reported) == set(scorer.component_names),
        f"scorer {name!r} announces the components {scorer.component_names}, but reports {reported}",
    )
    rows = np.array([scores.rewards, *(scores.components[c] for c in scorer.component_names)], np.float64)
    _require(rows.shape[1:] == (count,), f"scorer {name!r} evaluates {count} rows to shape {rows.shape[1:]}")
    _require(bool(np.isfinite(rows).all()), f"scorer {name!r} evaluates to values that are not finite: {rows}")
    return rows


def _compare(name: str, batch: Generations, want: FloatArray, got: FloatArray, tolerance: float, when: str) -> None:
    differs = ~np.isclose(want, got, rtol=tolerance, atol=tolerance)
    if differs.any():
        part, row, step = np.argwhere(differs)[0]
        raise AssertionError(
            f"scorer {name!r}, {when}, gives {got[part, row, step]:.6g} instead of {want[part, row, step]:.6g} for "
            f"{batch.prompts[row]!r} -> {batch.completions[row]!r}"
        )


def _check_unfinished(scorer: Scorer, batch: Generations) -> None:
    ended = np.arange(len(batch)) % 2 == 0
    rewards = scorer.evaluate(replace(batch, ended=ended)).rewards
    _require(
        not rewards[~ended].any(), f"scorer {scorer.name!r} does not pay per token, but pays rows that have not ended"
    )


def _episode(env: Any, seed: int, early: bool) -> tuple[IntArray, FloatArray]:
    """One random episode, every rule checked: observations (steps + 1, P + T) and rewards (steps,)."""
    mdp: TextMDP = env.mdp
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    _check_observation(env, obs, info)
    lengths = mdp.completion_lengths(obs)
    _require(lengths == 0, f"an episode starts with {lengths} completion tokens")
    observations, ended = [obs.copy()], False
    rewards: list[float] = []
    while not ended:
        length = len(rewards)
        action = _random_action(mdp, rng, length, early)
        obs[:] = mdp.pad_id  # were this the env's own buffer, the next observation would show it
        obs, reward, terminated, truncated, info = env.step(action)
        _check_observation(env, obs, info)
        expected = observations[-1].copy()
        expected[mdp.max_prompt_tokens + length] = action
        _require(
            np.array_equal(obs, expected), f"token {action} gave {obs}, not {expected}: rows grow only at their end"
        )
        ended = bool(mdp.is_eos[action]) or length + 1 == mdp.max_new_tokens
        _require(terminated == ended, f"terminated is {terminated} after {length + 1} tokens, the last one {action}")
        _require(not truncated, "truncated is True; it is for limits outside the env")
        _require(ended or env.scorer.per_token or reward == 0, f"reward {reward} before the end of the episode")
        observations.append(obs.copy())
        rewards.append(reward)
    missing = {"eos", "prompt_id", *env.scorer.component_names} - set(info)
    _require(not missing, f"info at the end has no {sorted(missing)}")
    try:
        env.step(action)
    except ResetNeeded:
        return np.array(observations), np.array(rewards)
    raise AssertionError("a step after the end does not raise gymnasium.error.ResetNeeded")


def _random_action(mdp: TextMDP, rng: np.random.Generator, length: int, early: bool) -> int:
    """An allowed token: EOS a third of the time where the episode may end early, else another one if there is any."""
    mask = mdp.action_masks(np.array(length))
    ends = mask & mdp.is_eos
    goes_on = mask & ~mdp.is_eos
    wanted = ends if early and rng.random() < 1 / 3 else goes_on
    return int(rng.choice(np.flatnonzero(wanted if wanted.any() else mask)))


def _check_observation(env: Any, obs: Any, info: dict[str, Any]) -> None:
    _require(env.observation_space.contains(obs), f"the observation {obs!r} is not in {env.observation_space}")
    for name, value in info.items():
        numeric = isinstance(value, numbers.Number | np.bool_) or (
            isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        )
        _require(numeric, f"info[{name!r}] is {value!r}; info holds numbers only")


def _require(holds: Any, message: str) -> None:
    """`assert` that `python -O` keeps."""
    if not holds:
        raise AssertionError(message)
