"""The worker process: gunicorn's threads, and a loop that lets nobody hold them who is slow.

gunicorn gives each new connection to a thread and lets the thread wait. Here the loop collects the request first, and a
thread sees it when it is whole (bodies over 64 KiB excepted), so that clients which send nothing, or a byte a second,
cost a file descriptor each and no thread. Closing, too, is done without waiting.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import struct
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHeader,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.gthread import ThreadWorker

from app import telemetry
from app.local.connection import BodyReader, Connection

HEAD_S = 10.0
"""Seconds from the first byte (or from connecting) to the end of the head; as many again for a small body."""
LINGER_S = 2.0
"""Seconds that a closing connection is listened to, so that its last answer is not torn away."""
_LINGER_BYTES = 256 * 1024
BACKLOG_S = 0.25
"""Seconds for which a request may wait for a thread. One that waited longer is told to come back, for a hundredth of
what it would cost to find that out in the application: else whoever comes later waits ever longer."""
QUIET_S = 30.0
"""Seconds that a worker which is to be replaced waits for a moment without requests."""
_WORK = (b"POST /v1/search", b"POST /v1/answer")
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TRANSIENT = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR, errno.EPROTO})
_STATUS: dict[type[ParseException], tuple[int, str]] = {
    LimitRequestLine: (414, "URI too long"),
    LimitRequestHeaders: (431, "Request header fields too large"),
    UnsupportedTransferCoding: (501, "Not implemented"),
    ExpectationFailed: (417, "Expectation failed"),
}


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with the requests collected by its loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # gunicorn would stop accepting in the middle of whatever goes on
        self._retire_after: int = self.max_requests
        self.max_requests: int = sys.maxsize
        self._retire_by: float | None = None
        # each in the order of coming
        self._waiting: dict[Connection, None] = {}
        self._closing: dict[Connection, int] = {}
        self._uploads = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))

    # the loop: everything here runs in the main thread, and never waits

    def accept(self, listener: socket.socket) -> None:
        """Take a connection; when there is no room, the one that has been silent longest makes some."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                if not self._evict():
                    time.sleep(0.05)  # everything is in use: the loop would come here again at once
                return
            if error.errno in _TRANSIENT:
                return
            raise
        self.nr_conns += 1
        self._await(Connection(self.cfg, client, address, listener.getsockname()), HEAD_S)
        if self.nr_conns >= self.worker_connections:
            self._evict()

    def _await(self, conn: Connection, seconds: float) -> None:
        """Wait in the loop for a request, for so many seconds."""
        if conn.ready():
            self.enqueue_req(conn)
            return
        try:
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._readable, conn))
        except (OSError, ValueError, KeyError):  # it is gone already
            self._let_go(conn)
            return
        conn.deadline = time.monotonic() + (seconds if self.alive else min(seconds, LINGER_S))
        self._waiting[conn] = None

    def _readable(self, conn: Connection, _sock: socket.socket) -> None:
        data = _received(conn)
        if data is None:
            return
        if not data:  # closed before its request was whole
            self._drop(conn)
            return
        first, had_head = conn.idle, conn.body_expected
        conn.feed(data)
        if conn.ready():
            self._forget(conn)
            self.enqueue_req(conn)
        elif self.alive and (first or (conn.body_expected and not had_head)):
            conn.deadline = time.monotonic() + HEAD_S

    def finish_request(self, conn: Connection, future: Future[bool]) -> None:
        """A thread is done with a request: wait for the next one, or close."""
        if future.cancelled() or future.exception() is not None or not future.result():
            self._close(conn)
            return
        conn.expect(conn.parser.unreader.take_buffered())
        self._await(conn, self.cfg.keepalive if conn.idle else HEAD_S)

    def _close(self, conn: Connection) -> None:
        """Close so that the last answer arrives: send the end, and let go when the client has, or after a while."""
        try:
            if conn.sock.aborted:  # closing then breaks the connection, and frees what the system holds for it
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise BrokenPipeError
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))
        except (OSError, ValueError, KeyError):  # it is gone already
            self._let_go(conn)
            return
        conn.deadline = time.monotonic() + LINGER_S
        self._closing[conn] = 0

    def _drain(self, conn: Connection, _sock: socket.socket) -> None:
        data = _received(conn)
        if data is None:
            return
        self._closing[conn] += len(data)
        if not data or self._closing[conn] > _LINGER_BYTES:
            self._drop(conn)

    def _forget(self, conn: Connection) -> None:
        """It is none of the loop's any more."""
        self._waiting.pop(conn, None)
        self._closing.pop(conn, None)
        self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        self._let_go(conn)

    def _let_go(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()

    def _evict(self) -> bool:
        """Close the connection that has been waited for longest: who has just come is likely to say something."""
        found = next(iter(self._closing), None) or next(iter(self._waiting), None)
        if found is None:
            return False
        telemetry.SLOW_CLIENTS.labels("idle").inc()
        self._drop(found)
        return True

    def murder_pending(self) -> None:
        """Close what has taken too long, and see whether it is time to go; the loop comes here once a second."""
        now = time.monotonic()
        for conn in [conn for conn in (*self._waiting, *self._closing) if conn.deadline <= now]:
            if conn in self._waiting and not conn.idle:
                telemetry.SLOW_CLIENTS.labels("body" if conn.body_expected else "head").inc()
                self.log.warning("a request from %s did not arrive in time", _address(conn.client))
            self._drop(conn)
        if self.alive and self.nr >= self._retire_after:
            self._retire(now)

    def _retire(self, now: float) -> None:
        if self._retire_by is None:
            self._retire_by = now + QUIET_S
        if self._at_work == 0 or now >= self._retire_by:
            self.log.warning("worker %s is replaced after %d requests", self.pid, self.nr)
            self.alive = False

    def _cap_keepalive(self, deadline: float) -> None:
        """Stopping: connections without a request are not waited for."""
        for conn in self._waiting:
            conn.deadline = min(conn.deadline, deadline)

    def set_accept_enabled(self, enabled: bool) -> None:
        """As gunicorn's; who stops for good also closes the listeners, so that newcomers are refused, not kept."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()

    def enqueue_req(self, conn: Connection) -> None:
        """Give a request to the threads."""
        conn.sock.arrived = time.monotonic()
        super().enqueue_req(conn)

    # the threads

    def handle(self, conn: Connection) -> bool:
        """Answer one request; runs in a thread."""
        if self._is_late(conn):
            telemetry.ADMISSION_REFUSED.labels("search", "backlog").inc()
            conn.sock.setblocking(True)
            _say(conn.sock, 429, "Too many requests", "the service is busy; come back in 1 s", "Retry-After: 1\r\n")
            return False
        if conn.refusal is not None:
            conn.sock.setblocking(True)
            self.handle_error(None, conn.sock, conn.client, conn.refusal)
            return False
        conn.sock.begin(self._uploads)
        try:
            return bool(super().handle(conn))
        finally:
            conn.sock.finish()

    def _is_late(self, conn: Connection) -> bool:
        """Whether it is a search or an answer and has waited for too long since all threads were taken."""
        waited = time.monotonic() - (conn.sock.arrived or float("inf"))
        return (
            conn.refusal is None
            and waited > BACKLOG_S
            and self._at_work >= self.cfg.threads  # else the machine stood still, and nobody waits behind it
            and conn.begins(_WORK)
        )

    @property
    def _at_work(self) -> int:
        """Requests that the threads have, or that wait for one."""
        return int(self.nr_conns) - len(self._waiting) - len(self._closing)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Refuse what two servers could understand differently, then answer."""
        hosts = [value for name, value in req.headers if name == "HOST"]
        if len(hosts) != 1 and req.version >= (1, 1):
            raise InvalidHeader("HOST", req=req)
        absolute = not req.uri.startswith("/") and "://" in req.uri
        if absolute and urlsplit(req.uri).netloc.lower() != "".join(hosts).lower():
            raise InvalidRequestLine("the target names another host than Host")
        if sum(name == "AUTHORIZATION" for name, _ in req.headers) > 1:
            raise InvalidHeader("AUTHORIZATION", req=req)
        req.body.reader = BodyReader(req.body.reader, req.force_close)
        return bool(super().handle_request(req, conn))

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what never reached the application; what was sent is neither repeated nor logged."""
        if isinstance(exc, ParseException):
            status, title = _STATUS.get(type(exc), (400, "Malformed request"))
            self.log.warning("refused a request from %s: %s", _address(addr), type(exc).__name__)
        else:
            status, title = 500, "Internal error"
            self.log.exception("error while handling a request")
        if not _say(client, status, title, title):
            self.log.debug("the client went away")


def _received(conn: Connection) -> bytes | None:
    """What has come, without waiting; empty where the client closed or broke off, None where nothing has come."""
    try:
        return conn.sock.recv(65536)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def _say(client: socket.socket, status: int, title: str, detail: str, headers: str = "") -> bool:
    """Send a problem document; whether that went well."""
    kind = "overloaded" if status == 429 else title.lower().replace(" ", "-")
    body = json.dumps({"type": f"urn:braid:problem:{kind}", "title": title, "status": status, "detail": detail})
    head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n{headers}"
    try:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    except OSError:
        return False
    return True


def _address(client: Any) -> str:
    return str(client[0]) if isinstance(client, tuple) and client else "a local socket"


def raise_descriptor_limit(wanted: int) -> int:
    """Let this process have `wanted` file descriptors, or as many as it may; how many it may have now."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
