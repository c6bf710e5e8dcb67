"""A server that speaks OpenAI's ``/v1/embeddings`` on loopback, and can be told to answer otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.writers.encoder import WordEncoder

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class EmbeddingServer:
    """What it was asked, and how it answers: `vectors_of` makes the vectors, `answer` may say anything else."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.vectors_of: Callable[[list[str]], list[list[float]]] = vectors_of
        self.answer: Answer = self.embed
        self.url = ""

    def embed(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer as a good server does."""
        rows = self.vectors_of(body["input"])
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
        send(handler, {"object": "list", "model": body["model"], "data": data[::-1], "usage": {}})

    @property
    def texts(self) -> list[str]:
        """All texts that it was sent."""
        return [text for body in self.asked for text in body["input"]]


def vectors_of(texts: list[str], model: str = "") -> list[list[float]]:
    """The vectors of a model, of length 3."""
    rows: list[list[float]] = (WordEncoder().encode_passages([model + text for text in texts]) * 1.5).tolist()
    return rows


def send(handler: BaseHTTPRequestHandler, body: object, status: int = 200, **headers: str) -> None:
    """Send `body` as JSON, or as it is."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def embedding_server(port: int = 0, *, busy: int = 0) -> Iterator[EmbeddingServer]:
    """A running server; the first `busy` calls are told to come back."""
    served = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/embeddings":
                self.send_error(404)
                return
            served.asked.append(body)
            served.headers.append(dict(self.headers))
            if len(served.asked) <= busy:
                send(self, {}, 429, Retry_After="1")
            else:
                served.answer(self, body)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    served.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
