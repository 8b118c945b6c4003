"""A server of an env id: every client that connects has a session, an env of its own.

Sessions share the tokenizer and the scorer, which may hold a model, and nothing else; one thread plays all of them,
since scorers are not made for several. What a client can make the server keep is bounded: the number of sessions, the
size of a message, and the messages that wait. Only OpenEnv's WebSocket and what describes the env is served. Its HTTP
routes for `reset` and `step` would make an env for every request, and its `/mcp` sessions outlive clients that vanish.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import EnvironmentMetadata

from textgym.arguments import Count, Positive, check_argument
from textgym.bridges.openenv.messages import (
    CompletionAction,
    PromptObservation,
    TextObservation,
    TextState,
    TokenAction,
)
from textgym.bridges.tasks import env_of
from textgym.envs import TextGenerationEnv

ROUTES = "/ws", "/health", "/metadata", "/schema"
MESSAGE_BYTES, MESSAGES_WAITING = 2**18, 4
"""What a client may send at once, and how much of it waits while its session is busy."""


class TextGymEnvironment(Environment[TokenAction, TextObservation, TextState]):
    """One session of an env id, as OpenEnv plays it.

    Args:
        env: whose task it is; it is copied.
        env_id: what it was made from.

    Attributes:
        env: the session's own.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True
    REQUIRES_SINGLE_THREAD_EXECUTOR = True  # one for all sessions, because they share a scorer

    def __init__(self, env: TextGenerationEnv, env_id: str):
        super().__init__()
        self.env, self._env_id = env.copy(), env_id
        self._episode_id: str | None = None
        self._steps = 0

    def reset(self, seed: int | None = None, episode_id: str | None = None, **options: Any) -> TextObservation:
        """Begin an episode.

        Args:
            seed: of the env's random numbers from now on; None goes on with them.
            episode_id: a name for `state`.
            options: `prompt` or `prompt_ids`, as the env's `reset` takes them.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode_id, self._steps = episode_id, 0
        return _observed(observation, info)

    def step(self, action: TokenAction, timeout_s: float | None = None, **kwargs: Any) -> TextObservation:
        """Append a token."""
        observation, reward, done, _, info = self.env.step(action.token)
        self._steps += 1
        return _observed(observation, info, reward=reward, done=done)

    @property
    def state(self) -> TextState:
        """Where the session is."""
        episode = {"episode_id": self._episode_id, "step_count": self._steps}
        return TextState(env_id=self._env_id, mdp=asdict(self.env.mdp), **episode)

    def get_metadata(self) -> EnvironmentMetadata:
        """The env's name."""
        return EnvironmentMetadata(name=self._env_id, description="a TextGym env: write a text that earns much")


class OneTurnEnvironment(Environment[CompletionAction, PromptObservation, TextState]):
    """One session in which an action is a whole text, as environments of OpenEnv for language models have it.

    Args:
        env: whose task it is; it is copied.
        env_id: what it was made from.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True
    REQUIRES_SINGLE_THREAD_EXECUTOR = True

    def __init__(self, env: TextGenerationEnv, env_id: str):
        super().__init__()
        self._by_token = TextGymEnvironment(env, env_id)
        self._prompt = ""

    def reset(self, seed: int | None = None, episode_id: str | None = None, **options: Any) -> PromptObservation:
        """Begin an episode; see `TextGymEnvironment.reset`."""
        info = self._by_token.reset(seed, episode_id, **options).metadata
        self._prompt = self._by_token.env.task.prompts.texts(np.array([info["prompt_id"]]))[0]
        return PromptObservation(prompt=self._prompt, metadata=info)

    def step(self, action: CompletionAction, timeout_s: float | None = None, **kwargs: Any) -> PromptObservation:
        """Write the text, token by token, and end the episode; the reward is the return.

        Raises:
            ValueError: the env could not have written it, by its length, its tokens or its tokenizer.
        """
        task = self._by_token.env.task
        tokens = task.encode_parts(self._prompt, action.completion)[task.mdp.max_prompt_tokens :]
        steps = [self._by_token.step(TokenAction(token=int(token))) for token in tokens[tokens != task.mdp.pad_id]]
        ends = {"reward": sum(step.reward for step in steps), "done": steps[-1].done}
        return PromptObservation(prompt=self._prompt, metadata=steps[-1].metadata, **ends)

    @property
    def state(self) -> TextState:
        """Where the session is."""
        return self._by_token.state

    def get_metadata(self) -> EnvironmentMetadata:
        """The env's name."""
        return self._by_token.get_metadata()


def make_app(env_id: str, *, max_sessions: int = 64, one_turn: bool = False, **kwargs: Any) -> FastAPI:
    """The server as an ASGI app.

    Args:
        env_id: the id.
        max_sessions: how many clients can be connected; more are refused until one has gone.
        one_turn: whether an action is a whole text, `CompletionAction`, and not a token.
        kwargs: the env's arguments.

    Raises:
        ValueError: see `env_of`.
    """
    check_argument("max_sessions", max_sessions, Count)
    check_argument("one_turn", one_turn, bool)
    env, action, observation = TextGymEnvironment, TokenAction, TextObservation
    if one_turn:
        env, action, observation = OneTurnEnvironment, CompletionAction, PromptObservation
    app = create_fastapi_app(
        partial(env, env_of(env_id, **kwargs), env_id), action, observation, max_sessions, state_cls=TextState
    )
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") in ROUTES]
    return app


def serve(
    env_id: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_sessions: int = 64,
    ping_seconds: float = 20.0,
    one_turn: bool = False,
    **kwargs: Any,
) -> None:
    """Serve an env id until the process is interrupted.

    Args:
        env_id: the id.
        host: the address to listen on, this machine's own by default: whoever reaches it can play.
        port: the port.
        max_sessions: see `make_app`.
        ping_seconds: how often a client is asked whether it is there; one that is silent for as long again is let go.
        one_turn: see `make_app`.
        kwargs: the env's arguments.
    """
    check_argument("ping_seconds", ping_seconds, Positive)
    uvicorn.run(
        make_app(env_id, max_sessions=max_sessions, one_turn=one_turn, **kwargs),
        host=host,
        port=port,
        log_level="warning",
        ws_max_size=MESSAGE_BYTES,
        ws_max_queue=MESSAGES_WAITING,
        ws_ping_interval=ping_seconds,
        ws_ping_timeout=ping_seconds,
    )


def _observed(observation: Any, info: dict[str, Any], **ends: Any) -> TextObservation:
    mask = info.pop("action_mask", None)
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in info.items()}
    listed = None if mask is None else mask.tolist()
    return TextObservation(token_ids=observation.tolist(), action_mask=listed, metadata=plain, **ends)
