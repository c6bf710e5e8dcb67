"""A client's connection: what it may cost in time, and how it is known that its request has arrived."""

from __future__ import annotations

import errno
import fcntl
import re
import select
import socket
import termios
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, ParseException
from gunicorn.workers.gthread import TConn

from app import telemetry
from app.errors import MalformedRequest, Overloaded, RequestTooSlow

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's line and headers."""
LINE_LIMIT = 8190
BUFFERED_BODY = 64 * 1024
"""Bodies up to here have arrived before a thread looks at the request; larger ones are read by the thread."""
BODY_S, ANSWER_S = 10.0, 20.0
"""Seconds that may be spent waiting for a client to send its body, or to take its answer; more as bytes move."""
LEAST_RATE = 8192
"""Bytes that buy a further second."""

_LONE_LF = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,9})[ \t]*\r$")
_OTHER_FRAMING = re.compile(rb"(?im)^(?:transfer-encoding|expect)[ \t]*:")


class TimedSocket(socket.socket):
    """A socket on which no thread waits for its client without end.

    Only the time spent waiting counts, never what the service needs itself, so that an answer may stream for as long
    as its maker takes.
    """

    arrived: float | None = None
    """The moment (of `time.monotonic`) at which the request was there: what it waits for a thread is its own time."""
    aborted = False
    """Whether its client was given up: what it has not taken is thrown away."""
    _uploads: threading.Semaphore | None = None
    _holds = False
    _waited_in = _waited_out = 0.0
    _moved_in = _sent = _taken_before = 0

    def begin(self, uploads: threading.Semaphore) -> None:
        """Begin a request.

        Args:
            uploads: bounds how many threads wait for bodies at once.
        """
        self._uploads = uploads
        self._waited_in = self._waited_out = 0.0
        self._moved_in = self._sent = self._taken_before = 0

    def finish(self) -> None:
        """The request has been answered."""
        if self._holds and self._uploads is not None:
            self._holds = False
            self._uploads.release()
        self._uploads = None

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As `socket.recv`.

        Raises:
            RequestTooSlow: the body takes too long.
            Overloaded: too many threads wait for bodies.
        """
        if self.gettimeout() is not None:  # not blocking, or its caller set a limit
            return super().recv(size, flags)
        while True:
            try:
                data = super().recv(size, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait_for_body()
                continue
            if self._waited_in:
                self._moved_in += len(data)
            return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As `socket.sendall`. Raises BrokenPipeError where the client takes its answer too slowly."""
        if self.gettimeout() is not None:
            super().sendall(data, flags)
            return
        left = memoryview(data).cast("B")
        while left:
            try:
                sent = super().send(left, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait_for_room()
                continue
            self._sent += sent
            left = left[sent:]

    def _wait_for_body(self) -> None:
        if not self._holds and self._uploads is not None:
            if not self._uploads.acquire(timeout=0.25):
                telemetry.SLOW_CLIENTS.labels("uploads").inc()
                raise Overloaded("too many slow uploads are under way: send it again in a moment", retry_after_s=2)
            self._holds = True
        left = BODY_S + self._moved_in / LEAST_RATE - self._waited_in
        self._waited_in += self._wait(select.POLLIN, left)
        if self._waited_in >= BODY_S + self._moved_in / LEAST_RATE:
            telemetry.SLOW_CLIENTS.labels("body").inc()
            raise RequestTooSlow(
                f"the body did not arrive: {BODY_S:.0f} s are waited for it, and a second for each {LEAST_RATE} bytes"
            )

    def _wait_for_room(self) -> None:
        if not self._waited_out:
            self._taken_before = self._taken()
        left = ANSWER_S + (self._taken() - self._taken_before) / LEAST_RATE - self._waited_out
        self._waited_out += self._wait(select.POLLOUT, left)
        if self._waited_out >= ANSWER_S + (self._taken() - self._taken_before) / LEAST_RATE:
            telemetry.SLOW_CLIENTS.labels("answer").inc()
            self.aborted = True
            raise BrokenPipeError(errno.EPIPE, "the client takes its answer too slowly")

    def _taken(self) -> int:
        """Bytes that have reached the client: what was sent, less what the system holds for it (megabytes, maybe)."""
        held = array("i", [0])
        fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, held, True)
        return self._sent - held[0]

    def _wait(self, event: int, seconds: float) -> float:
        """Wait for the client; the seconds that it took (a hair more than none)."""
        poll = select.poll()
        poll.register(self.fileno(), event)
        began = time.monotonic()
        poll.poll(max(0.0, seconds) * 1000)
        return time.monotonic() - began + 1e-6


class Connection(TConn):  # type: ignore[misc]
    """A connection whose requests are collected before a thread is spent on them."""

    sock: TimedSocket

    def __init__(self, cfg: Any, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(cfg, TimedSocket(fileno=client.detach()), address, server)
        self.data_ready = True
        self.deadline = 0.0
        self.refusal: ParseException | None = None
        self._arrived = bytearray()
        self._needed: int | None = None
        self._looked = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come."""
        return not self._arrived

    @property
    def body_expected(self) -> bool:
        """Whether the head has come, and its body has not."""
        return self._needed is not None and len(self._arrived) < self._needed

    def init(self) -> None:
        """Prepare the parser, in the thread; it begins with what was collected."""
        super().init()
        if self._arrived:
            self.parser.unreader.unread(bytes(self._arrived))
            self.expect(b"")

    def expect(self, begun: bytes) -> None:
        """A new request is expected, of which `begun` has come."""
        self._arrived = bytearray(begun)
        self._needed = None
        self._looked = 0

    def begins(self, texts: tuple[bytes, ...]) -> bool:
        """Whether the request that was collected begins with one of `texts`."""
        return self._arrived.startswith(texts)

    def feed(self, data: bytes) -> None:
        """More of the request has come."""
        self._arrived += data

    def ready(self) -> bool:
        """Whether a thread may have it: it is whole, or its body is for the thread to read, or it is to be refused."""
        data = self._arrived
        if self._needed is None:
            if not data:
                return False
            end = data.find(b"\r\n\r\n", max(0, self._looked - 3))
            if end < 0:
                return self._hopeless()
            self._needed = end + 4 + _body_to_wait_for(bytes(data[: end + 2]))
        return len(data) >= self._needed

    def _hopeless(self) -> bool:
        """Whether the head is one that the parser refuses at once (it has no end, and would be waited for)."""
        data = self._arrived
        if len(data) > HEAD_LIMIT:
            self.refusal = LimitRequestHeaders("limit request headers size")
            return True
        if _LONE_LF.search(data, max(0, self._looked - 1)):
            return True
        self._looked = len(data)
        return len(data) > LINE_LIMIT + 4 and data.find(b"\r\n", 2, LINE_LIMIT + 4) < 0


def _body_to_wait_for(head: bytes) -> int:
    """How many bytes of body are worth waiting for before a thread starts; how the body ends is the parser's matter."""
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or _OTHER_FRAMING.search(head):
        return 0
    length = int(lengths[0])
    return length if length <= BUFFERED_BODY else 0


class BodyReader:
    """Reads a body; what is wrong with its chunks is the client's mistake, said as such."""

    def __init__(self, reader: Any, close: Callable[[], None]) -> None:
        """Read from gunicorn's `reader`; `close` ends the connection with the answer."""
        self._reader = reader
        self._close = close
        self._ended = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes. Raises MalformedRequest where the chunks are broken."""
        try:
            data: bytes = self._reader.read(size)
        except ParseException as error:
            raise MalformedRequest("the body's chunks are broken") from error
        self._ended = self._ended or not data
        return data

    def answer(self) -> None:
        """The answer begins: where much of the body was not read, say that the connection ends with it.

        gunicorn would close it without a word, and the client's next request would be lost.
        """
        left = getattr(self._reader, "length", None)  # None: of chunks, which have no length
        if not self._ended and (left is None or left > BUFFERED_BODY):
            self._close()
