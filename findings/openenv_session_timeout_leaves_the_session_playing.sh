#!/usr/bin/env bash
# openenv 0.10.0: a session that `session_timeout` ends for idleness goes on playing, on an environment that was closed. The
# reaper spares sessions that a WebSocket has joined by their id, but not a WebSocket's own: it closes the environment and frees
# the place, while the connection stays and its next messages still reach the environment. The client is told nothing, and more
# clients play than `max_concurrent_envs` allows.
# Seen:  two clients play where one is allowed; their environments are closed: [True, False]
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openenv==0.10.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import threading
import time

import uvicorn
from openenv.core import GenericEnvClient
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, ConcurrencyConfig, Observation, State


class Env(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True
    closed = False

    def reset(self, seed=None, episode_id=None, **kwargs):
        return Observation()

    def step(self, action, timeout_s=None, **kwargs):
        return Observation(metadata={"closed": self.closed})

    @property
    def state(self):
        return State()

    def close(self):
        self.closed = True


limits = ConcurrencyConfig(max_concurrent_envs=1, session_timeout=1.0)
app = create_fastapi_app(Env, Action, Observation, concurrency_config=limits)
server = uvicorn.Server(uvicorn.Config(app, port=8765, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.1)


async def main():
    first, second = (GenericEnvClient(base_url="http://127.0.0.1:8765") for _ in range(2))
    await first.reset()
    await asyncio.sleep(12)  # the reaper looks every 5 seconds
    await second.reset()
    steps = [(await client.step({})).metadata["closed"] for client in (first, second)]
    print(f"two clients play where one is allowed; their environments are closed: {steps}")
    assert steps == [True, False]


asyncio.run(main())
PYTHON
