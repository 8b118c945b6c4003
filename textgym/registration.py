"""The table of env ids. String entry points, so that registering imports nothing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

ENTRY_POINT = "textgym.envs:TextGenerationEnv"
VECTOR_ENTRY_POINT = "textgym.envs:TextGenerationVectorEnv"

DEFAULTS = {"entry_point": ENTRY_POINT, "vector_entry_point": VECTOR_ENTRY_POINT}
UNCONDITIONAL = {"prompts": [""], "max_prompt_tokens": 1}
"""Texts from BOS alone."""
TOPIC = {
    "name": "keyword",
    "words": "comedy comedies comic comedic funny humor laugh laughs hilarious joke jokes".split(),
    "component_name": "topic",
}
FIRST_PERSON = {"name": "keyword", "words": ["I", "me", "my", "myself"], "component_name": "first_person"}
TOY = {"entry_point": "textgym.envs:TextGenToyEnv", "vector_entry_point": "textgym.envs:TextGenToyVectorEnv"}

IDS: dict[str, dict[str, Any]] = {
    "TextGen-v0": {},
    "TextGenChars-v0": {
        "kwargs": {
            "tokenizer": {"name": "characters", "alphabet": "abcd"},
            "prompts": [""],
            "scorer": {"name": "regex", "pattern": "ab"},
            "max_prompt_tokens": 1,
            "max_new_tokens": 8,
        }
    },
    "TextGenToy-v0": TOY,
    "TextGenWords-v0": TOY
    | {
        "kwargs": {
            "words": "the film plot acting is was not very good great bad boring".split(),
            "max_new_tokens": 5,
            "scorer": "sentiment",
        }
    },
    "TextGenKeyword-v0": {"kwargs": UNCONDITIONAL | {"scorer": {"name": "keyword", "words": ["horror"]}}},
    "TextGenTopic-v0": {"kwargs": UNCONDITIONAL | {"scorer": TOPIC}},
    "TextGenBalance-v0": {"kwargs": UNCONDITIONAL | {"scorer": FIRST_PERSON}},
    "TextGenHybrid-v0": {
        "kwargs": UNCONDITIONAL
        | {"scorer": {"name": "weighted_sum", "scorers": [TOPIC, FIRST_PERSON], "weights": [0.5, 0.5]}}
    },
}
"""Id -> arguments of `gymnasium.register` that differ from `DEFAULTS`: `"kwargs"`, the env's arguments that differ from
its own defaults, and the entry points of ids with other classes. `kwargs` are JSON, so `env.spec.to_json()` works."""


def register_envs() -> None:
    """Register every id with Gymnasium; ids that are registered already stay as they are."""
    for env_id, row in IDS.items():
        if env_id not in gym.registry:
            gym.register(env_id, **{**DEFAULTS, **row})
