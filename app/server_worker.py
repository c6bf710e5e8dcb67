"""gunicorn's threaded worker with five changes, and its validation of requests.

nginx handles clients that send or read slowly (`docker/nginx/nginx.conf`). Without nginx only a silent client is
disconnected, by the timeouts of `limit_silence`.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from gunicorn.glogging import Logger
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHeader,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

from app.errors import ConfigurationError, MalformedRequest, RequestTooSlow
from app.imitation import EVERY_API, error_fields
from app.request_threads import RequestThreads

HEAD_LIMIT = 64 * 1024
"""Maximum bytes of a request's headers."""
LINE_LIMIT = 8190
RECEIVE_S, SEND_S = 10, 20
"""Seconds that a thread waits for a client to send or accept anything."""
_LARGE_BODY = 64 * 1024
"""Bytes of an unread body; gunicorn reads no more of it."""
_DRAIN = 64 * 1024 * 1024
"""Bytes that are discarded at the end of a connection, within two seconds: as many as nginx lets through. Otherwise a
proxy that is still sending would lose the answer."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a machine that has no room for another connection now."""
_NO_ROOM_S = 0.05
"""Seconds until the loop tries again."""

_STATUS: dict[type[ParseException], tuple[int, str]] = {
    LimitRequestLine: (414, "URI too long"),
    LimitRequestHeaders: (431, "Request header fields too large"),
    UnsupportedTransferCoding: (501, "Not implemented"),
    ExpectationFailed: (417, "Expectation failed"),
}


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker; docs/decisions.md says why each of these methods is needed."""

    def get_thread_pool(self) -> RequestThreads:
        """Return threads for requests, and beside them threads for those that wait for the language model."""
        llm = self.app.settings.llm
        return RequestThreads(self.cfg.threads, llm.concurrency if llm.url is not None else 0)

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, or leave it in the backlog while the machine has no room for it.

        gunicorn would end the worker, and with it all answers under way.
        """
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self.log.warning("no room for another connection: %s", error.strerror)
            time.sleep(_NO_ROOM_S)

    def handle(self, conn: Any) -> Any:
        """Answer a request in a thread; close the connection there if it ends with the request.

        gunicorn's loop would wait up to two seconds for each client to close its side, and do nothing else meanwhile.
        """
        kept = super().handle(conn)
        if not kept:
            if conn.sock.fileno() >= 0:
                conn.sock.setblocking(True)
                close_graceful(conn.sock, max_drain=_DRAIN)
            # the loop closes it again, and counts the connection twice if that fails
            conn.close = lambda graceful=False: None
        return kept

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer requests that never reached the application with a problem document, without repeating or logging
        them.
        """
        status, title = 500, "Internal error"
        if isinstance(exc, ParseException):
            status, title = _STATUS.get(type(exc), (400, "Malformed request"))
            self.log.warning("refused a request from %s: %s", addr[0] if addr else "a socket", type(exc).__name__)
        else:
            self.log.exception("error while handling a request")
        kind = title.lower().replace(" ", "-")
        problem = {"type": f"urn:braid:problem:{kind}", "title": title, "status": status, "detail": title}
        body = json.dumps(problem | error_fields(EVERY_API, status, kind, title))
        head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        try:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError:
            self.log.debug("the client went away")

    def set_accept_enabled(self, enabled: bool) -> None:
        """Stop or start accepting; a worker that ends closes its listeners, so that new clients are
        rejected, not kept.
        """
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()


class WorkerLog(Logger):  # type: ignore[misc]
    """gunicorn's log, with a line instead of a traceback for a silent client, and for a setting that can't be used."""

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log the current exception."""
        error = sys.exception()
        # the numbers of `limit_silence`; a time-out of the application's own has none
        if isinstance(error, OSError) and error.errno in {errno.EAGAIN, errno.ETIMEDOUT}:
            self.warning("a client was silent for too long: its connection is closed")
        elif isinstance(error, ConfigurationError):
            self.error("%s:", error.title)  # gunicorn prints the detail
        else:
            super().exception(msg, *args, **kwargs)


class BodyReader:
    """Reads a body; broken chunks and slow transfers are client errors."""

    def __init__(self, reader: Any) -> None:
        """Read from gunicorn's `reader`."""
        self._reader = reader

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes.

        Raises:
            MalformedRequest: the chunks are broken.
            RequestTooSlow: nothing arrived for `RECEIVE_S`.
        """
        try:
            data: bytes = self._reader.read(size)
        except ParseException as error:
            raise MalformedRequest("the body's chunks are broken") from error
        except BlockingIOError as error:
            raise RequestTooSlow(f"nothing of the body arrived for {RECEIVE_S} s") from error
        return data


def check_request(_worker: object, req: Any) -> None:
    """Reject requests that two servers could interpret differently; gunicorn's hook `pre_request`.

    Raises:
        InvalidHeader, InvalidRequestLine, LimitRequestHeaders: gunicorn answers with `Worker.handle_error`.
    """
    if sum(len(name) + len(value) + 4 for name, value in req.headers) > HEAD_LIMIT:
        raise LimitRequestHeaders("limit request headers size")
    values: dict[str, list[str]] = {}
    for name, value in req.headers:
        values.setdefault(name, []).append(value)
    hosts = values.get("HOST", [])
    if len(hosts) != 1 and req.version >= (1, 1):
        raise InvalidHeader("HOST", req=req)
    absolute = not req.uri.startswith("/") and "://" in req.uri
    if absolute and urlsplit(req.uri).netloc.lower() != "".join(hosts).lower():
        raise InvalidRequestLine("the target names another host than Host")
    if len(values.get("AUTHORIZATION", [])) > 1:
        raise InvalidHeader("AUTHORIZATION", req=req)
    req.body.reader = BodyReader(req.body.reader)
    # much of a large body may stay unread: gunicorn would announce a kept connection, and then close it
    if "TRANSFER-ENCODING" in values or int(values.get("CONTENT-LENGTH", ["0"])[0]) > _LARGE_BODY:
        req.force_close()


def limit_silence(server: Any) -> None:
    """Limit how long a thread waits for a silent client; gunicorn's hook `when_ready`. Connections inherit it."""
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", RECEIVE_S, 0))
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_S * 1000)
