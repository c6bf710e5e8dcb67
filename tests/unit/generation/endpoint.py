"""A real HTTP server that speaks, or fails to speak, the OpenAI protocol: what endpoints do on bad days."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Write = Callable[[bytes], None]
Behaviour = Callable[[Write, threading.Event], None]


def chunk(text: str = "", *, finish: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    """One event of a streamed completion."""
    body: dict[str, Any] = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}],
    }
    if usage:
        prompt, completion = usage
        body |= {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def complete(*pieces: str) -> list[bytes]:
    """All events of a completion that goes well."""
    return [*map(chunk, pieces), chunk(finish="stop"), chunk(usage=(7, 3)), b"data: [DONE]\n\n"]


class Endpoint:
    """`requests` holds the bodies that came in; `hung_up` is set when a caller closed its connection."""

    def __init__(self, url: str, behaviour: Behaviour) -> None:
        self.url = url
        self.behaviour = behaviour
        """May be replaced between requests."""
        self.requests: list[dict[str, Any]] = []
        self.hung_up = threading.Event()
        self.closing = threading.Event()


@contextmanager
def endpoint(
    behaviour: Behaviour, *, status: int = 200, kind: str = "text/event-stream", raw: bool = False
) -> Iterator[Endpoint]:
    """Serve `behaviour` (given a writer, and an event that is set at the end) for every request.

    Args:
        raw: the behaviour writes status line and headers, too.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if not raw:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.end_headers()
            ended = threading.Event()
            threading.Thread(target=self.watch, args=(ended,), daemon=True).start()

            def write(data: bytes) -> None:
                self.wfile.write(data)
                self.wfile.flush()

            try:
                found.behaviour(write, found.closing)
            except OSError:
                found.hung_up.set()
            finally:
                ended.set()

        def watch(self, ended: threading.Event) -> None:
            """See the caller hang up while nothing is written to it."""
            poll = select.poll()
            poll.register(self.connection, select.POLLRDHUP)
            while not (ended.is_set() or found.closing.is_set()):
                if poll.poll(20):
                    found.hung_up.set()
                    return

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Endpoint(f"http://127.0.0.1:{server.server_address[1]}", behaviour)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        found.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def says(*events: bytes) -> Behaviour:
    """Writes `events` and hangs up."""

    def behave(write: Write, _: threading.Event) -> None:
        for event in events:
            write(event)

    return behave
