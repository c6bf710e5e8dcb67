"""Free loopback ports that stay ours until the server that is to listen there has started."""

from __future__ import annotations

import socket
from types import TracebackType


class ReservedPorts:
    """`count` free TCP ports of 127.0.0.1, held by bound sockets that don't listen.

    Linux lets a server with SO_REUSEADDR (which Java and Valkey set) listen on such a port, but gives it to nobody
    who asks for any free one, so two starts at the same time can't get the same port.
    """

    def __init__(self, count: int) -> None:
        self._held = []
        for _ in range(count):
            held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            self._held.append(held)
        self.numbers: tuple[int, ...] = tuple(held.getsockname()[1] for held in self._held)

    def __enter__(self) -> ReservedPorts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for held in self._held:
            held.close()
