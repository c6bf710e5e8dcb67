"""An HTTP proxy in front of a server that writes down each request, and refuses what a rule does not allow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

Rule = Callable[[str, str], bool]


@dataclass
class Recorder:
    """Address of the proxy, and the requests (method and path) that it saw."""

    url: str
    seen: list[tuple[str, str]] = field(default_factory=list)


def everything(method: str, path: str) -> bool:
    return True


@contextmanager
def recorded(target: str, allow: Rule = everything) -> Iterator[Recorder]:
    """Forward to `target` what `allow` (of method and path) permits; answer the rest with 403, as a guard would."""
    client = httpx2.Client(base_url=target, timeout=60)
    recorder = Recorder("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            recorder.seen.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if not allow(self.command, self.path):
                self.reply(403, b'{"error": {"type": "security_exception", "reason": "no permissions"}, "status": 403}')
                return
            kind = {"content-type": self.headers["content-type"]} if body else {}
            answer = client.request(self.command, self.path, content=body, headers=kind)
            self.reply(answer.status_code, answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = forward  # noqa: N815

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with client, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
