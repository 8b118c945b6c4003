"""What a library has recorded of an env, beside the same tokens written by hand into the single env."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

import textgym  # noqa: F401 (registers the ids)


@dataclass
class HandRun:
    """What hand runs gave: (return, length) of every whole episode, the steps compared, and what was wrong."""

    episodes: list[tuple[float, int]] = field(default_factory=list)
    steps: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def has(self, reported: list[tuple[float, int]]) -> bool:
        """Whether these (return, length) are those of the episodes, in any order and float32."""
        mine, theirs = (Counter((round(float(r), 5), int(n)) for r, n in e) for e in (self.episodes, reported))
        return mine == theirs


def hand_run(
    env_id: str,
    observations: Any,
    actions: Any,
    rewards: Any,
    ends: Any,
    next_observations: Any = None,
    **kwargs: Any,
) -> HandRun:
    """Write what each row wrote, and compare every step.

    What can be wrong: an `episode that begins` after its first token; a `dead step`, from a text that has ended; a
    `next observation` (where given), `reward` or `end` other than the env's; and a `next row`, the observation of the
    step after, that is not the text with its token.

    Args:
        env_id: the id of the env, and with `kwargs` its arguments.
        observations: (steps, N, P + T) in order of time, of any type; as for the others, what the library recorded.
        actions: (steps, N)
        rewards: (steps, N)
        ends: (steps, N)
        next_observations: (steps, N, P + T)
        kwargs: see `env_id`.
    """
    env: Any = gym.make(env_id, **kwargs).unwrapped
    rows = np.asarray(observations).astype(np.int64)
    after = rows[1:] if next_observations is None else np.asarray(next_observations).astype(np.int64)
    actions, rewards, ends = np.asarray(actions).astype(np.int64), np.asarray(rewards), np.asarray(ends)
    assert rows.shape[:2] == actions.shape == rewards.shape == ends.shape
    run = HandRun()
    for n in range(rows.shape[1]):
        text = None  # what the hand run has written, while an episode runs
        for t in range(len(rows)):
            run.steps += 1
            if text is None:
                text, total = begin(env, rows[t, n], run), 0.0
                if text is None:
                    continue
                whole = not env.mdp.completion_lengths(text)
            text, reward, ended, _, _ = env.step(int(actions[t, n]))
            total += reward
            run.wrong["reward"] += not np.isclose(reward, rewards[t, n], rtol=1e-6)
            run.wrong["end"] += ended != ends[t, n]
            if next_observations is not None:
                run.wrong["next observation"] += not np.array_equal(after[t, n], text)
            if t + 1 < len(rows) and not ended:
                run.wrong["next row"] += not np.array_equal(rows[t + 1, n], text)
            if ended and whole:
                run.episodes.append((total, int(env.mdp.completion_lengths(text))))
            if ended or t + 1 < len(rows) and not np.array_equal(rows[t + 1, n], text):
                text = None
    run.wrong = +run.wrong  # without zeros
    return run


def begin(env: Any, row: np.ndarray, run: HandRun) -> np.ndarray | None:
    """Bring the env to a row, which should be a prompt alone; None where its text has ended."""
    mdp = env.mdp
    prompt, written = (part[part != mdp.pad_id] for part in np.split(row, [mdp.max_prompt_tokens]))
    if len(written) and mdp.ended(row):
        run.wrong["dead step"] += 1
        return None
    text, _ = env.reset(options={"prompt_ids": prompt})
    run.wrong["episode that begins"] += len(written) > 0
    for token in written:
        text, *_ = env.step(int(token))
    return text
