"""A service on this machine, for the scorers that ask one: rewards from lengths, and a judge."""

from __future__ import annotations

import functools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers what `remote` and `judge` ask, each as soon as it can."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Rewards by the texts' lengths; in a chat, a score from 1 to 10."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "messages" in asked:
            text = f"Score: {1 + len(asked['messages'][0]['content']) % 10}"
            answer: dict[str, object] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        else:
            answer = {"rewards": [len(text) for text in asked["completions"]]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Nothing, where the base class writes a line per request."""


class Server(ThreadingHTTPServer):
    """With room for as many connections at once as a scorer opens."""

    request_queue_size, daemon_threads = 128, True


@functools.cache
def service() -> str:
    """The URL of a server in a thread of this process, started when it is first asked for, up until the end."""
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/"
