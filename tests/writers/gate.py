"""An HTTP proxy between one writer and the node: it holds requests back, swallows them, or loses their answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

How = Literal["late", "late-silent", "answer-lost", "twice", "never", "stall"]
"""What becomes of a request. ``late``: the connection breaks, and the request goes to the node when `deliver` is
called; ``late-silent``: the same, but the writer runs into its own time limit; ``answer-lost``: it goes there at
once, and the connection breaks; ``twice``: so, and once more by `deliver`; ``never``; ``stall``: the writer is to be
killed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the `nth` bulk of heads, or of passages (from 1)."""

    what: Literal["heads", "passages"]
    nth: int
    how: How


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def what(self) -> str:
        path = self.path.partition("?")[0]
        if not path.endswith("/_bulk"):
            return ""
        return "passages" if path == "/_bulk" else "heads"


class Gate:
    """Forwards to the node at `url`, one connection there for each that comes."""

    def __init__(self, url: str, faults: tuple[Fault, ...] = (), stalled: Callable[[], None] = lambda: None) -> None:
        at = urlsplit(url)
        self._target = (at.hostname or "127.0.0.1", at.port or 80)
        self._faults = faults
        self._stalled = stalled
        self._counts = {"heads": 0, "passages": 0, "": 0}
        self._held: list[_Request] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.tampered = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Break everything off."""
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def deliver(self) -> int:
        """Let the requests that were held through, in their order; how many there were."""
        with self._lock:
            held, self._held = self._held, []
        if held:
            node = http.client.HTTPConnection(*self._target, timeout=60)
            for request in held:
                _forward(node, request)
            node.close()
        return len(held)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(caller)
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        node = http.client.HTTPConnection(*self._target, timeout=60)
        with (
            contextlib.suppress(OSError, ValueError),
            contextlib.closing(node),
            caller,
            caller.makefile("rb") as lines,
        ):
            while request := _read(lines):
                if not self._let(request, node, caller):
                    return

    def _let(self, request: _Request, node: http.client.HTTPConnection, caller: socket.socket) -> bool:
        """Forward the request, or do to it what a fault says; False: the connection is over."""
        with self._lock:
            self._counts[request.what] += 1
            nth = self._counts[request.what]
            how = next((fault.how for fault in self._faults if (fault.what, fault.nth) == (request.what, nth)), None)
            self.tampered += how is not None
        if how in ("answer-lost", "twice"):
            _forward(node, request)
        if how in ("late", "late-silent", "twice", "stall"):
            with self._lock:
                self._held.append(request)
        if how == "stall":
            self._stalled()
        if how in ("late-silent", "stall"):
            caller.recv(1)  # until it hangs up
        if how is not None:
            with contextlib.suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)
            return False
        caller.sendall(_forward(node, request))
        return True


def _read(lines: object) -> _Request | None:
    readline, read = lines.readline, lines.read  # type: ignore[attr-defined]
    first = readline().decode("latin-1").split()
    if not first:
        return None
    headers: dict[str, str] = {}
    while line := readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return _Request(first[0], first[1], headers, read(int(headers.get("content-length", "0"))))


def _forward(node: http.client.HTTPConnection, request: _Request) -> bytes:
    headers = {name: value for name, value in request.headers.items() if name not in ("host", "connection")}
    node.request(request.method, request.path, body=request.body or None, headers=headers)
    answer = node.getresponse()
    body = answer.read()
    kept = [(name, value) for name, value in answer.getheaders() if name.lower() != "transfer-encoding"]
    if not any(name.lower() == "content-length" for name, _ in kept):
        kept.append(("content-length", str(len(body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in kept)
    return f"HTTP/1.1 {answer.status} {answer.reason}\r\n{lines}\r\n".encode("latin-1") + body
