"""What the client and the server tell each other, in OpenEnv's base classes."""

from __future__ import annotations

from typing import Any

from openenv.core.env_server.types import Action, Observation, State
from pydantic import StrictInt, StrictStr


class TokenAction(Action):
    """The next token.

    Attributes:
        token: its id.
    """

    token: StrictInt


class TextObservation(Observation):
    """What the env gives at a reset or a step, beside `done` and `reward`.

    Attributes:
        token_ids: (P + T) the env's observation: prompt and completion, empty cells filled with the pad id V.
        action_mask: (V) 1 where the token may be chosen next; None where the env never forbids one.
        metadata: the env's info: `prompt_id`, and at the end `eos` and the scorer's components.
    """

    token_ids: list[int]
    action_mask: list[int] | None = None


class CompletionAction(Action):
    """The whole text, where an episode is one turn.

    Attributes:
        completion: what follows the prompt.
    """

    completion: StrictStr


class PromptObservation(Observation):
    """What an env of one turn asks, beside `done` and `reward`.

    Attributes:
        prompt: the text of the prompt.
        metadata: the env's info.
    """

    prompt: str


class TextState(State):
    """Where a session is, and what it plays.

    Attributes:
        step_count: tokens of the present episode.
        env_id: the id that is served.
        mdp: the fields of the env's `TextMDP`.
    """

    env_id: str
    mdp: dict[str, Any]
