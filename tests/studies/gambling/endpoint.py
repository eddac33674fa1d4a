"""A chat endpoint on this machine, which answers as a test says and remembers what it was asked."""

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from types import MappingProxyType
from typing import Any, NamedTuple


class Answer(NamedTuple):
    body: object = None
    """Sent as JSON, or as it is if these are bytes."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    never: bool = False
    """Whether it does not come before the endpoint is closed."""


def says(text: str | None, finish: str | None = "stop", **message: object) -> Answer:
    """An ordinary answer, with seven tokens of prompt and three of text."""
    choice = {"index": 0, "finish_reason": finish, "message": {"content": text, **message}}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return Answer({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def fails(status: int, message: str = "sorry", code: str | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "code": code}}, status, named)


Script = Callable[[dict[str, Any], int], Answer]
"""From a request's body, and how often this very body was asked before, to the answer."""


class Endpoint:
    def __init__(self, script: Script, *, wait_for: int = 0) -> None:
        """The first `wait_for` requests are held until all of them are here, and then a moment
        longer, in which one more would be seen if it were sent.
        """
        self.script, self.wait_for = script, wait_for
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.changed, self.closing = Condition(), Event()
        self._seen: dict[str, int] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        with self.changed:
            self.bodies.append(body)
            self.headers.append(headers)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.changed.notify_all()
            if len(self.bodies) <= self.wait_for:
                self.changed.wait_for(lambda: len(self.bodies) >= self.wait_for, timeout=20)
                self.changed.wait_for(lambda: len(self.bodies) > self.wait_for, timeout=0.3)
            key = json.dumps(body, sort_keys=True)
            nth = self._seen[key] = self._seen.get(key, -1) + 1
        try:
            answer = self.script(body, nth)
            if answer.never:
                self.closing.wait(20)
            return answer
        finally:
            # Before the answer leaves: whoever has it may ask again.
            with self.changed:
                self.in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                answer = fails(404, f"there is no {self.path}")
            else:
                answer = endpoint.asked(body, dict(self.headers))
            content = answer.body
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: tests are silent."""

    return Handler
