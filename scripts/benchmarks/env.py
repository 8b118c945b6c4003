"""The benchmark that needs no model: env steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import textgym
from scripts.benchmarks.timing import measure
from scripts.command_line import env_arguments
from textgym.mdp import IntArray
from textgym.scorers import Generations


class NoText(textgym.Scorer):
    """Reads token ids only: the length of the completion."""

    name = "no_text"

    def score(self, generations: Generations) -> Any:
        """(n,) completion tokens."""
        return generations.lengths


class ReadsText(textgym.Scorer):
    """Decodes every prompt and completion: the number of characters."""

    name = "reads_text"

    def score(self, generations: Generations) -> Any:
        """(n,) characters."""
        return [len(text) for text in generations.texts]


def env(
    env_id: str = "TextGen-v0",
    env_kwargs: str = "{}",
    autoreset_modes: tuple[Literal["SameStep", "NextStep", "Disabled"], ...] = ("SameStep",),
    num_envs: tuple[int, ...] = (1, 64, 1024),
    sizes: tuple[tuple[int, int], ...] = ((16, 32), (128, 50)),
    transitions: int = 400_000,
    repeats: int = 5,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Env steps per second with random tokens, beside the ceiling: copying the observation alone.

    1 env is `gym.make` with all its default wrappers, its resets included; more are the native vector env. Actions are
    uniform over the vocabulary and drawn before the clock starts, as Python ints for the single env. `eos` true: EOS is
    drawn like any token, so rows drift apart, and after a while some end in nearly every step. `eos` false: it is never
    drawn, and all rows end together at the length limit. `dead_steps` is the share of rows' steps that only begin an
    episode or wait for one; they count as steps. In Disabled mode all rows wait until all have ended.

    Args:
        env_id: the env.
        env_kwargs: its arguments as JSON.
        autoreset_modes: of the vector env.
        num_envs: numbers of rows.
        sizes: pairs of `max_prompt_tokens` and `max_new_tokens`.
        transitions: tokens per run, over all rows; rounded to whole steps.
        repeats: runs that are counted.
        seed: of the env and the actions.
    """
    kwargs = env_arguments(env_kwargs)
    for prompt_tokens, new_tokens in sizes:
        for rows in num_envs:
            steps = max(1, transitions // rows)
            copying = measure(copy_run(rows, prompt_tokens + new_tokens, steps), steps, repeats)
            scorers: list[textgym.Scorer] = [NoText(), ReadsText()]
            modes = autoreset_modes if rows > 1 else ("single",)
            for scorer, eos, mode in product(scorers, (True, False), modes):
                arguments = {"max_prompt_tokens": prompt_tokens, "max_new_tokens": new_tokens, "scorer": scorer}
                if rows > 1:
                    arguments["autoreset_mode"] = mode
                run = (single_run if rows == 1 else vector_run)(env_id, arguments | kwargs, (steps, rows), seed, eos)
                dead = run()
                timing = measure(run, steps, repeats)
                yield {
                    "benchmark": "env",
                    "env_id": env_id,
                    "num_envs": rows,
                    "max_prompt_tokens": prompt_tokens,
                    "max_new_tokens": new_tokens,
                    "scorer": scorer.name,
                    "eos": eos,
                    "autoreset_mode": mode,
                    "dead_steps": round(dead / (steps * rows), 4),
                    "steps_per_second": round(rows / timing.cpu_seconds),
                    "steps_per_second_wall": round(rows / timing.wall_seconds),
                    "copy_only_steps_per_second": round(rows / copying.cpu_seconds),
                    **asdict(timing),
                    "repeats": repeats,
                }


def draw_actions(mdp: textgym.TextMDP, shape: tuple[int, int], seed: int, eos: bool) -> IntArray:
    """Tokens, uniform over the vocabulary, with or without EOS; (steps, rows)."""
    tokens = np.arange(mdp.vocab_size) if eos else np.flatnonzero(~mdp.is_eos)
    return np.random.default_rng(seed).choice(tokens, size=shape)


def single_run(env_id: str, kwargs: dict[str, Any], shape: tuple[int, int], seed: int, eos: bool) -> Callable[[], int]:
    """Steps of `gym.make`'s env, which is reset whenever an episode ends; the run returns how many were dead, 0."""
    made = gym.make(env_id, **kwargs)
    made.reset(seed=seed)
    actions = draw_actions(made.unwrapped.mdp, shape, seed, eos)[:, 0].tolist()  # type: ignore[attr-defined]

    def run() -> int:
        made.reset()
        for action in actions:
            _, _, terminated, truncated, _ = made.step(action)
            if terminated or truncated:
                made.reset()
        return 0

    return run


def vector_run(env_id: str, kwargs: dict[str, Any], shape: tuple[int, int], seed: int, eos: bool) -> Callable[[], int]:
    """Steps of `gym.make_vec`'s env; a run goes on where the last one stopped, and returns how many were dead."""
    made = gym.make_vec(env_id, num_envs=shape[1], **kwargs)
    made.reset(seed=seed)
    mode = made.metadata["autoreset_mode"]
    actions = draw_actions(made.unwrapped.mdp, shape, seed, eos)  # type: ignore[attr-defined]
    waiting = np.zeros(shape[1], bool)

    def run() -> int:
        nonlocal waiting
        dead = 0
        for action in actions:
            ended = made.step(action)[2]
            if mode is AutoresetMode.SAME_STEP:
                continue
            dead += int(np.count_nonzero(waiting))
            waiting = ended if mode is AutoresetMode.NEXT_STEP else waiting | ended
            if mode is AutoresetMode.DISABLED and waiting.all():
                made.reset(options={"reset_mask": waiting})
                waiting = np.zeros(shape[1], bool)
        return dead

    return run


def copy_run(rows: int, width: int, steps: int) -> Callable[[], object]:
    """`steps` copies of a (rows, width) int64 array: what returning observations costs if nothing else does."""
    cells = np.zeros((rows, width) if rows > 1 else width, np.int64)

    def run() -> None:
        for _ in range(steps):
            cells.copy()

    return run
