"""What the wrappers of `textgym.wrappers` add to an env step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from scripts.benchmarks.env import NoText, draw_actions
from scripts.benchmarks.timing import measure
from textgym import wrappers as w
from textgym.language_models import load_model
from textgym.mdp import IntArray


def ids_alone(observations: IntArray) -> Any:
    """A potential that costs nearly nothing: the newest column of the row."""
    return observations[:, -1]


def wrappers(
    num_envs: tuple[int, ...] = (1, 64), steps: int = 640, dimensions: int = 8, repeats: int = 5, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Microseconds per step of `TextGen-v0` with one wrapper each, beside the bare env.

    1 env is `gym.make`, resets included; more are the native vector env (autoreset SameStep). EOS is never drawn. The
    scorer reads no text. References are the model `tiny`, which decodes once a step for `ReferenceReward`, and scores
    whole episodes for `CounterfactualCredit` (one other token for each).

    Args:
        num_envs: numbers of rows.
        steps: of a run.
        dimensions: of the actions of `EmbeddingActions`.
        repeats: runs that are counted.
        seed: of the env and the actions.
    """
    tiny = load_model("tiny")
    for rows in num_envs:
        vector = "" if rows == 1 else "Vector"
        made: dict[str, tuple[Any, ...]] = {
            "none": (),
            "ConstantInfo": (),
            "PotentialShaping": (ids_alone,),
            "PotentialShaping with sentiment": ("sentiment",),
            "ReferenceReward": (tiny, 0.1),
            "CounterfactualCredit": (tiny, 1),
            "EmbeddingActions": (tiny, "l2", dimensions),
        }
        for name, arguments in made.items():
            kwargs = {"scorer": NoText()}
            env: Any = gym.make("TextGen-v0", **kwargs) if rows == 1 else gym.make_vec("TextGen-v0", rows, **kwargs)
            actions: Any = draw_actions(env.unwrapped.mdp, (steps, rows), seed, eos=False)
            if name != "none":
                env = getattr(w, vector + name.split()[0])(env, *arguments)
            if name == "EmbeddingActions":
                actions = env.embeddings[actions].astype(np.float32)  # (steps, rows, d)
            env.reset(seed=seed)
            timing = measure(_run(env, actions[:, 0] if rows == 1 else actions), steps, repeats)
            yield {
                "benchmark": "wrappers",
                "wrapper": name,
                "num_envs": rows,
                "microseconds_per_step": round(timing.cpu_seconds * 1e6, 1),
                "repeats": repeats,
            }


def _run(env: Any, actions: Any) -> Callable[[], None]:
    def run() -> None:
        for action in actions:
            *_, terminations, _, _ = env.step(action)
            if np.ndim(terminations) == 0 and terminations:
                env.reset()

    return run
