# /// script
# dependencies = ["openenv==0.10.0"]
# ///
"""A served env id beside hand runs; run by test_in_environments.py, where OpenEnv is installed."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
from openenv.core import GenericEnvClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.helpers.docs import ROOT, blocks, page, section
from textgym.bridges.openenv import TextGymClient, TokenAction, make_app

KWARGS = {"max_new_tokens": 12, "min_new_tokens": 2, "banned_tokens": [7]}
SMALL = {"scorer": {"name": "exact_match"}, "prompts": [{"prompt": "2+2=", "reference": "4"}], "tokenizer": "bytes"}


@contextmanager
def served(env_id, kwargs, *options, port=None):
    """A server in a process of its own, at the attribute `port`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", port or 0))
        port = free.getsockname()[1]
    command = [sys.executable, "scripts/serve.py", env_id, "--env-kwargs", json.dumps(kwargs), "--port", str(port)]
    process = subprocess.Popen([*command, *options], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    process.port = port
    try:
        deadline = time.monotonic() + 180
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server():
    with served("TextGen-v0", KWARGS) as process:
        yield process


@pytest.fixture(scope="module")
def small():
    """Three sessions at most, and clients are asked for a sign of life every second."""
    with served("TextGen-v0", SMALL, "--max-sessions", "3", "--ping-seconds", "1") as process:
        yield process


def client_of(process, cls=TextGymClient):
    return cls(base_url=f"http://127.0.0.1:{process.port}")


def raw(process):
    return connect(f"ws://127.0.0.1:{process.port}/ws", proxy=None)


def ask(connection, message):
    connection.send(message if isinstance(message, str | bytes) else json.dumps(message))
    return json.loads(connection.recv(timeout=10))


async def play(process, number, episodes):
    """A session of random tokens beside an env here with the same seed: transitions compared, and how many differ."""
    env, rng, seen, wrong = gym.make("TextGen-v0", **KWARGS).unwrapped, np.random.default_rng(number), 0, 0
    async with client_of(process) as client:
        for episode in range(episodes):
            seed = number if episode == 0 else None  # the later ones go on with the session's random numbers
            pin = {"prompt": f"Film {number}"} if rng.random() < 0.3 else {}
            result = await client.reset(seed=seed, **pin)
            row, info = env.reset(seed=seed, options=pin)
            ended, reward = False, None
            while True:
                mask, mine = info.pop("action_mask"), result.observation
                wrong += mine.token_ids != row.tolist() or mine.action_mask != mask.tolist()
                wrong += result.reward != reward or result.done != ended or result.metadata != info
                seen += 1
                if ended:
                    break
                token = int(rng.choice(mask.nonzero()[0])) if rng.random() < 0.8 or not mask[2] else 2
                result = await client.step(TokenAction(token=token))
                row, reward, ended, _, info = env.step(token)
    return seen, wrong


def test_64_sessions_at_once_are_64_hand_runs(server):
    async def all_of_them():
        return await asyncio.gather(*(play(server, number, 8) for number in range(64)))

    seen, wrong = np.array(asyncio.run(all_of_them())).sum(0)
    print(f"{seen} transitions of 64 sessions at once")
    assert seen > 2000 and wrong == 0


def test_a_prompt_that_one_session_brings_is_no_other_ones(small):
    """Nor its columns, although the text is the same: the second session's prompt has no answer."""
    with client_of(small).sync() as one, client_of(small).sync() as two:
        one.reset(prompt={"prompt": "3+3=", "reference": "6"})
        two.reset(prompt="3+3=")
        for client in (one, two):
            client.step(TokenAction(token=ord("6")))
        assert one.step(TokenAction(token=256)).reward == 1.0
        with pytest.raises(RuntimeError, match="reference"):
            two.step(TokenAction(token=256))


def test_the_state_says_what_is_played(server):
    with client_of(server).sync() as client:
        client.reset(episode_id="mine")
        client.step(TokenAction(token=300))
        state = client.state()
    mdp = asdict(gym.make("TextGen-v0", **KWARGS).unwrapped.mdp)
    assert (state.episode_id, state.step_count, state.env_id) == ("mine", 1, "TextGen-v0")
    assert json.dumps(state.mdp) == json.dumps(mdp)


def test_openenvs_own_client_plays_too(server):
    with client_of(server, GenericEnvClient).sync() as client:
        assert client.reset(seed=1).done is False
        assert client.step({"token": 300}).observation["token_ids"][16] == 300


REFUSED = {
    '{"type": "step", "data": {"token": 7}}': "forbidden",
    '{"type": "step", "data": {"token": 2}}': "forbidden",
    '{"type": "step", "data": {"token": 99999}}': "outside the vocabulary",
    '{"type": "step", "data": {"token": -1}}': "outside the vocabulary",
    '{"type": "step", "data": {"token": true}}': "Invalid message",
    '{"type": "step", "data": {"token": "5"}}': "Invalid message",
    '{"type": "step", "data": {"token": 5.0}}': "Invalid message",
    '{"type": "step", "data": {"token": NaN}}': "Invalid message",
    '{"type": "step", "data": {"token": 5, "more": 1}}': "Invalid message",
    '{"type": "step", "data": {}}': "Invalid message",
    '{"type": "step"}': "Invalid message",
    '{"type": "step", "data": 5}': "Invalid message",
    '{"type": "reset", "data": {"promt": "a"}}': "unknown reset option 'promt'",
    '{"type": "reset", "data": {"prompt": 5}}': "a prompt is a text",
    '{"type": "reset", "data": {"prompt_ids": [99999]}}': "run from 0 to",
    '{"type": "reset", "data": {"seed": "x"}}': "Seed must be a python integer",
    '{"type": "reset", "data": {"seed": -1}}': "Seed must be greater or equal to zero",
    '{"type": "dance"}': "Unknown message type",
    '{"type": {"a": 1}}': "Unknown message type",
    "{}": "Unknown message type",
    "reset": "Invalid JSON",
    "": "Invalid JSON",
    "\x00": "Invalid JSON",
}


def test_malformed_messages_are_refused_and_the_session_goes_on(server):
    with raw(server) as connection:
        start = ask(connection, {"type": "reset", "data": {"seed": 5}})
        for message, words in REFUSED.items():
            answer = ask(connection, message)
            assert answer["type"] == "error" and words in answer["data"]["message"], (message, answer)
        after = ask(connection, {"type": "step", "data": {"token": 300}})
    rows = [part["data"]["observation"]["token_ids"] for part in (start, after)]
    assert rows[0][:16] == rows[1][:16] and rows[1][16] == 300 and set(rows[1][17:]) == {3072}


def test_a_step_without_an_episode_is_refused(server):
    with raw(server) as connection:
        answer = ask(connection, {"type": "step", "data": {"token": 300}})
        assert "call reset()" in answer["data"]["message"]


@pytest.mark.parametrize("message", ["[1]", "5", "null", b"\x00\x01", "[" * 100_000, "x" * 300_000])
def test_what_is_no_message_ends_its_own_session_only(server, message):
    with raw(server) as other, raw(server) as connection:
        ask(other, {"type": "reset", "data": {"seed": 5}})
        connection.send(message)
        with pytest.raises(Exception, match=r"received 10\d\d|sent 10\d\d"):
            while True:
                connection.recv(timeout=10)
        assert ask(other, {"type": "step", "data": {"token": 300}})["type"] == "observation"


@pytest.mark.parametrize("path", ["/reset", "/step", "/state", "/mcp", "/docs", "/TextGymEnvironment/tasks"])
def test_only_sessions_are_served(server, path):
    for data in (None, b"{}"):
        with pytest.raises(urllib.error.HTTPError, match="404|405"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", data=data)


def fill_up(process, timeout=10):
    """Play three sessions, as soon as there is room for them; the fourth client is refused."""
    deadline, playing = time.monotonic() + timeout, 0
    with ExitStack() as stack:
        while playing < 3:
            connection = stack.enter_context(raw(process))
            with suppress(ConnectionClosed):  # a client that is refused may be so before it can send
                connection.send('{"type": "reset"}')
            playing += json.loads(connection.recv(timeout=10))["type"] == "observation"
            assert time.monotonic() < deadline, "no room"
        refuses(process)


def refuses(process):
    with raw(process) as connection:
        assert json.loads(connection.recv(timeout=10))["data"]["code"] == "CAPACITY_REACHED"


def test_clients_beyond_the_limit_are_refused_until_one_leaves(small):
    fill_up(small)
    fill_up(small)


def test_a_client_that_is_killed_frees_its_session(small):
    program = (
        "import time; from websockets.sync.client import connect\n"
        f"c = connect('ws://127.0.0.1:{small.port}/ws', proxy=None); c.send('{{\"type\": \"reset\"}}'); c.recv()\n"
        "print('playing', flush=True); time.sleep(60)"
    )
    players = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(3)]
    for player in players:
        assert player.stdout.readline() == b"playing\n"
    refuses(small)
    for player in players:
        player.kill()
        player.wait()
    fill_up(small)


def test_a_client_that_falls_silent_frees_its_session(small):
    """As one whose machine has lost its network: the connection stays, and no ping is answered."""
    silent = []
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", small.port))
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"101" in connection.recv(1000)
        silent.append(connection)
    fill_up(small, timeout=20)


def resident(process):
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+)", open(f"/proc/{process.pid}/status").read())
    return int(kilobytes) / 1024


def test_memory_is_bounded(server):
    """Sessions that come and go, prompts that are never asked again, and messages as large as they may be."""

    def burden(sessions):
        for number in range(sessions):
            with raw(server) as connection:
                for i in range(100):
                    ask(connection, {"type": "reset", "data": {"prompt": f"{number} {i}"}})
                ask(connection, json.dumps({"type": "x" * 250_000}))

    burden(40)
    before = resident(server)
    burden(120)
    grown = resident(server) - before
    print(f"grown by {grown:.1f} MiB over {before:.0f}")
    assert grown < 8


def test_it_listens_on_loopback(server):
    with open("/proc/net/tcp") as lines:
        listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    (address,) = (a for a in listening if int(a.split(":")[1], 16) == server.port)
    assert address.startswith("0100007F")  # 127.0.0.1


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="max_sessions"):
        make_app("TextGenChars-v0", max_sessions=0)
    with pytest.raises(ValueError, match="CartPole"):
        make_app("CartPole-v1")


def test_the_section_of_the_page_is_a_program(capsys):
    with served("TextGenChars-v0", {}, port=8000):
        exec("\n".join(blocks(section(page("bridges"), "OpenEnv"))), {})
    assert capsys.readouterr().out
