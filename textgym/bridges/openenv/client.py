"""The client of a served env id: OpenEnv's, with the env's messages."""

from __future__ import annotations

import math
from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from textgym.bridges.openenv.messages import TextObservation, TextState, TokenAction


class TextGymClient(EnvClient[TokenAction, TextObservation, TextState]):
    """One session of a served env, from the moment it connects until it is closed; async, or `.sync()`.

    `reset(seed=..., prompt=...)` takes the seed and the options that the env's `reset` takes, and `step` a
    `TokenAction`; what the env refuses is a `RuntimeError` with its words.
    """

    def _step_payload(self, action: TokenAction) -> dict[str, Any]:
        return {"token": action.token}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[TextObservation]:
        # JSON has no NaN, which is a component that does not apply
        info = {name: math.nan if value is None else value for name, value in payload.get("metadata", {}).items()}
        ends = {"reward": payload["reward"], "done": payload["done"]}
        observation = TextObservation(**payload["observation"] | {"metadata": info}, **ends)
        return StepResult(observation=observation, metadata=info, **ends)

    def _parse_state(self, payload: dict[str, Any]) -> TextState:
        return TextState(**payload)
