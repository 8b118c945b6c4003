"""The table of env ids. String entry points, so that registering imports nothing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

ENTRY_POINT = "textgym.envs:TextGenerationEnv"
VECTOR_ENTRY_POINT = "textgym.envs:TextGenerationVectorEnv"

IDS: dict[str, dict[str, Any]] = {
    "TextGen-v0": {},
    "TextGenChars-v0": {
        "tokenizer": {"name": "characters", "alphabet": "abcd"},
        "prompts": [""],
        "scorer": {"name": "regex", "pattern": "ab"},
        "max_prompt_tokens": 1,
        "max_new_tokens": 8,
    },
}
"""Id -> keyword arguments that differ from the env's defaults. They are JSON, so `env.spec.to_json()` works."""


def register_envs() -> None:
    """Register every id with Gymnasium; ids that are registered already stay as they are."""
    for env_id, kwargs in IDS.items():
        if env_id not in gym.registry:
            gym.register(env_id, entry_point=ENTRY_POINT, vector_entry_point=VECTOR_ENTRY_POINT, kwargs=kwargs)
