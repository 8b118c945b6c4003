"""What a task says of itself. JSON and words only, so that reading the tasks imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TINY_TASKS_ALPHABET = "0123456789+-*/=:, abcdefghijklmnopqrstuvwxyz"
"""The characters of the embedded model `"tiny-tasks"`, by their token ids; end-of-text has the next one."""


def tiny_task_ids(characters: str) -> list[int]:
    """Token ids of characters, and of end-of-text, for the tokenizer of `"tiny-tasks"`."""
    return [*map(TINY_TASKS_ALPHABET.index, characters), len(TINY_TASKS_ALPHABET)]


@dataclass(frozen=True)
class Feature:
    """A component of the scorer that is 1.0 where a text has a feature and 0.0 where it has not.

    Attributes:
        description: which texts have it, as the end of the sentence "1.0 if the text ...".
        base_rate: share of the reference model's texts that have it.
        standard_error: of the base rate.
    """

    description: str
    base_rate: float
    standard_error: float


@dataclass(frozen=True)
class Task:
    """An env id: the env's arguments, and the words of its page, `docs/envs/<id>.md`.

    Attributes:
        id: the name for `gymnasium.make`.
        summary: one line for lists of ids.
        description: what the task is and what it is good for.
        reward: what is paid for, in words.
        reward_range: the least and the largest return of an episode.
        kwargs: the env's arguments that differ from the defaults of its class; JSON, so `env.spec.to_json()` works.
        env: class of the single env, an import string. The vector env's has `VectorEnv` where this one has `Env`.
        model: the reference model that agents start from: what `load_model` accepts, `"table"` where the env brings a
            table of logits (`TextGenToyEnv.reference_model`), or None where there is none.
        features: of a task with constraints, by component name.
        target: of a task with constraints, the target distribution as the JSON of `make_target`.
        versions: what each version of the id changed, oldest first.
        see_also: pages of the documentation, relative to `docs/envs`, by their titles.
    """

    id: str
    summary: str
    description: str
    reward: str
    reward_range: tuple[float, float]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    env: str = "textgym.envs:TextGenerationEnv"
    model: str | None = "tiny"
    features: Mapping[str, Feature] = field(default_factory=dict)
    target: Mapping[str, Any] | None = None
    versions: tuple[str, ...] = ("v0: first version.",)
    see_also: Mapping[str, str] = field(default_factory=dict)

    @property
    def vector_env(self) -> str:
        """Class of the vector env, an import string."""
        return self.env.removesuffix("Env") + "VectorEnv"
