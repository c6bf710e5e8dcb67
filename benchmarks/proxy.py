"""A TCP proxy on loopback that fails in a chosen way: what a network, or the server behind it, does on bad days.

It runs an asyncio loop in a thread of its own, so that tests and benchmarks use it like any other object.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Fault = Literal["none", "refuse", "hang", "slow", "reset", "cut", "answer"]
"""``refuse``: nobody listens, and what is open is broken. ``hang``: takes everything and says nothing. ``slow``: each
answer comes `delay_s` late. ``reset``, ``cut``: after `after` bytes of an answer the connection is broken, or ended as
if that were all. ``answer``: `answer` is said in place of the server, which hears nothing."""


def http_answer(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    """A whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@dataclass(eq=False)
class _Pair:
    """A client's connection and, unless it is answered here, the one to the server."""

    caller: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    sent: int = 0
    """Bytes of the answer under way."""
    hung: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class FaultyProxy:
    """Forwards to `target` (a port on loopback, which may be changed) until `fail`; `heal` ends the fault."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._fault: Fault = "none"
        self._delay_s, self._after, self._answer = 0.0, 0, b""
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self.port = 0
        self._run(self._listen())

    def fail(self, fault: Fault, *, delay_s: float = 0.0, after: int = 0, answer: bytes = b"") -> None:
        """Begin a fault; it is there on return, for connections that are open, too."""
        self._run(self._set(fault, delay_s, after, answer))

    def heal(self) -> None:
        """Forward again. Connections whose requests were swallowed are broken, as by a server that began anew."""
        self._run(self._set("none", 0.0, 0, b""))

    def close(self) -> None:
        """End everything."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self, work: Awaitable[None]) -> None:
        async def wrapped() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, fault: Fault, delay_s: float, after: int, answer: bytes) -> None:
        before, self._fault = self._fault, fault
        self._delay_s, self._after, self._answer = delay_s, after, answer
        if fault == "refuse":
            self._stop_listening()
            for pair in list(self._pairs):
                self._break(pair)
        elif before == "refuse":
            await self._listen()
        if before in {"hang", "answer"}:
            for pair in [pair for pair in self._pairs if pair.hung or pair.server is None]:
                self._break(pair)
        if fault == "answer":  # connections that are open would be answered by the server
            for pair in list(self._pairs):
                self._break(pair)

    async def _end(self) -> None:
        self._stop_listening()
        pairs = list(self._pairs)
        for pair in pairs:
            self._break(pair)
        await asyncio.gather(*(task for pair in pairs for task in pair.tasks), return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        self._pairs.add(pair)
        try:
            if self._fault == "answer":
                pair.tasks = [asyncio.create_task(self._say(pair, reader))]
            else:
                try:
                    back, pair.server = await asyncio.open_connection("127.0.0.1", self.target)
                except OSError:
                    return
                pair.tasks = [
                    asyncio.create_task(self._up(pair, reader, pair.server)),
                    asyncio.create_task(self._down(pair, back)),
                ]
            await asyncio.wait(pair.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for task in pair.tasks:
                task.cancel()
            for end in (pair.caller, pair.server):
                if end is not None:
                    end.close()

    async def _up(self, pair: _Pair, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._fault == "hang":
                    pair.hung = True
                    continue
                pair.sent = 0
                server.write(data)
                await server.drain()

    async def _down(self, pair: _Pair, back: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await back.read(65536):
                if self._fault == "hang":
                    pair.hung = True
                    continue
                if self._fault == "slow" and pair.sent == 0:
                    await asyncio.sleep(self._delay_s)
                if self._fault in {"reset", "cut"} and pair.sent + len(data) > self._after:
                    pair.caller.write(data[: max(0, self._after - pair.sent)])
                    await pair.caller.drain()
                    if self._fault == "reset":
                        await asyncio.sleep(0.01)  # so that the half is read before the break
                        self._break(pair)
                    return
                pair.sent += len(data)
                pair.caller.write(data)
                await pair.caller.drain()

    async def _say(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            if not await reader.read(65536):
                return
            with suppress(TimeoutError):  # the rest of the request
                async with asyncio.timeout(0.02):
                    while await reader.read(65536):
                        pass
            pair.caller.write(self._answer)
            await pair.caller.drain()

    def _break(self, pair: _Pair) -> None:
        """Reset the caller's connection, and let the server's go."""
        raw = pair.caller.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        pair.caller.transport.abort()
        if pair.server is not None:
            pair.server.transport.abort()
