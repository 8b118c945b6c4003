"""Real HTTP servers for a test: slow, failing, talking nonsense, or dying in the middle of an answer."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Die(Exception):
    """Raised by an answer: the connection breaks off, after some bytes if there are any."""


class Served:
    """A server that is running.

    Attributes:
        url: where it listens.
        requests: the JSON that it got, in the order of arrival.
        headers: of each of these requests.
    """

    def __init__(self, answer):
        self.answer, self.requests, self.headers, self._lock = answer, [], [], threading.Lock()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append(dict(handler.headers))
        try:
            answer = self.answer(body, number)
        except Die as death:
            if death.args:
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + death.args[0])
            handler.close_connection = True
            return
        status, headers, content = answer if isinstance(answer, tuple) else (200, {}, answer)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


@contextlib.contextmanager
def serve(answer):
    """A server on a free port; `answer(request's JSON, its number)` gives JSON, bytes or (status, headers, content)."""
    served = Served(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                served.handle(self)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/score"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lengths(body, number=0):
    """What most services here answer: the number of characters of each completion."""
    return {"rewards": [len(text) for text in body["completions"]]}


def chat(text):
    """A chat completion as OpenAI's API gives it."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
