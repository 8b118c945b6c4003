"""A TextGym id as an OpenEnv environment: the server (`serve`, `make_app`), and its client (`TextGymClient`)."""

from textgym.importing import require

require("openenv", "openenv")

from textgym.bridges.openenv.client import TextGymClient
from textgym.bridges.openenv.messages import (
    CompletionAction,
    PromptObservation,
    TextObservation,
    TextState,
    TokenAction,
)
from textgym.bridges.openenv.server import OneTurnEnvironment, TextGymEnvironment, make_app, serve

__all__ = [
    "CompletionAction",
    "OneTurnEnvironment",
    "PromptObservation",
    "TextGymClient",
    "TextGymEnvironment",
    "TextObservation",
    "TextState",
    "TokenAction",
    "make_app",
    "serve",
]
