"""The table of env ids. String entry points, so that registering imports nothing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

ENTRY_POINT = "textgym.envs:TextGenerationEnv"
VECTOR_ENTRY_POINT = "textgym.envs:TextGenerationVectorEnv"

DEFAULTS = {"entry_point": ENTRY_POINT, "vector_entry_point": VECTOR_ENTRY_POINT}
TOY = {"entry_point": "textgym.envs:TextGenToyEnv", "vector_entry_point": "textgym.envs:TextGenToyVectorEnv"}

UNCONDITIONAL = {"prompts": [""], "max_prompt_tokens": 1}
SMOLLM2 = UNCONDITIONAL | {"tokenizer": "smollm2-q4", "max_new_tokens": 40}


def _any_of(component: str, words: str) -> dict[str, Any]:
    """A scorer: whether any of the words occurs."""
    return {"name": "keyword", "words": words.split(), "component_name": component}


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A scorer: the mean of two."""
    return {"name": "weighted_sum", "scorers": [first, second], "weights": [0.5, 0.5]}


COMEDY = _any_of("topic", "comedy comedies comic comedic funny humor laugh laughs hilarious joke jokes")
FANTASY = _any_of(
    "topic", "magic magical wizard witch spell dragon ghost spirit spirits king queen kingdom castle ancient"
)
# the regex scorer gives the share of the text that the pattern covers: all of it, or nothing
OPENING = {"name": "regex", "pattern": r"(?s)\AThis\b.*", "component_name": "opening"}
FEMALE = {
    "name": "more_words",
    "words": "she her hers herself woman women girl girls".split(),
    "than": "he him his himself man men boy boys".split(),
    "component_name": "female",
}

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
    "TextGenKeyword-v0": {"kwargs": UNCONDITIONAL | {"scorer": _any_of("keyword", "horror")}},
    "TextGenTopic-v0": {"kwargs": UNCONDITIONAL | {"scorer": COMEDY}},
    "TextGenBalance-v0": {"kwargs": UNCONDITIONAL | {"scorer": OPENING}},
    "TextGenHybrid-v0": {"kwargs": UNCONDITIONAL | {"scorer": _both(COMEDY, OPENING)}},
    "TextGenKeywordSmolLM2-v0": {"kwargs": SMOLLM2 | {"scorer": _any_of("keyword", "love")}},
    "TextGenTopicSmolLM2-v0": {"kwargs": SMOLLM2 | {"scorer": FANTASY}},
    "TextGenBalanceSmolLM2-v0": {"kwargs": SMOLLM2 | {"scorer": FEMALE}},
    "TextGenHybridSmolLM2-v0": {"kwargs": SMOLLM2 | {"scorer": _both(FANTASY, FEMALE)}},
}
"""Id -> arguments of `gymnasium.register` that differ from `DEFAULTS`: `"kwargs"`, the env's arguments that differ from
its own defaults, and the entry points of ids with other classes. `kwargs` are JSON, so `env.spec.to_json()` works."""


def register_envs() -> None:
    """Register every id with Gymnasium; ids that are registered already stay as they are."""
    for env_id, row in IDS.items():
        if env_id not in gym.registry:
            gym.register(env_id, **{**DEFAULTS, **row})
