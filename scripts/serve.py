"""Serve an env id as an OpenEnv environment: `python scripts/serve.py TextGen-v0`.

Clients are `textgym.bridges.openenv.TextGymClient`, or any of OpenEnv's; each that connects plays an env of its own.
The server listens on this machine alone unless `--host` says otherwise, asks nobody who they are, and needs
`pip install "textgym[openenv]"`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from typing import Annotated

import tyro

from scripts.command_line import console, env_arguments
from textgym.arguments import Count, Positive, Range


@dataclass
class Args:
    """What to serve, and where."""

    env_id: tyro.conf.Positional[str]
    """The env id."""
    env_kwargs: str = "{}"
    """Further arguments of the env, as JSON."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is every one that this machine has."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """The port; 0 for any that is free."""
    one_turn: bool = False
    """An action is a whole text and not a token, as environments of OpenEnv for language models have it."""
    max_sessions: Count = 64
    """How many clients can be connected at once."""
    ping_seconds: Positive = 20.0
    """How often clients are asked whether they are there; one that is silent for as long again is let go."""


def main(args: Args) -> None:
    """Serve until interrupted."""
    from textgym.bridges.openenv import serve

    kwargs = vars(args) | env_arguments(args.env_kwargs)
    del kwargs["env_kwargs"]
    console.print(f"serving {args.env_id} on http://{args.host}:{args.port}; Ctrl-C ends it", soft_wrap=True)
    serve(**kwargs)
