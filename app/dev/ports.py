"""Ports: free ones of the loopback address, reserved until a server has started; the port of the settings."""

from __future__ import annotations

import socket


class ReservedPorts:
    """`count` free TCP ports of 127.0.0.1, held by bound sockets that do not listen.

    Linux lets a server with SO_REUSEADDR (which Java and Valkey set) listen on such a port, but does not assign it to
    others that request any free port, so that two concurrent starts can't get the same one.
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

    def __exit__(self, *error: object) -> None:
        for held in self._held:
            held.close()


def bind_port(host: str, port: int) -> int:
    """Return the port that a server can listen on: `port`, or for 0 a free one. Raises OSError."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        found: int = probe.getsockname()[1]
        return found
