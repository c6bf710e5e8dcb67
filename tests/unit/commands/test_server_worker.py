"""What the server checks of a request before the application has it, with gunicorn's own parser."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader, InvalidRequestLine, LimitRequestHeaders, ParseException
from gunicorn.http.parser import RequestParser

from app.errors import ConfigurationError, MalformedRequest, RequestTooSlow
from app.server_worker import Worker, WorkerLog, check_request

LINE = b"POST /v1/search HTTP/1.1\r\n"
HOST = b"Host: a\r\n"


def checked(data: bytes | socket.socket) -> Any:
    """The request, checked."""
    request = next(RequestParser(Config(), data if isinstance(data, socket.socket) else iter([data]), ("127.0.0.1", 1)))
    check_request(None, request)
    return request


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (LINE + b"\r\n", InvalidHeader),
        (b"GET http://b/ HTTP/1.1\r\n" + HOST + b"\r\n", InvalidRequestLine),
        (LINE + HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", InvalidHeader),
        (LINE + HOST + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 8000) for n in range(9)) + b"\r\n", LimitRequestHeaders),
    ],
    ids=["no host", "another host", "two keys", "large head"],
)
def test_what_two_servers_could_understand_differently_is_refused(data: bytes, error: type[ParseException]) -> None:
    with pytest.raises(error):
        checked(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://A/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        LINE + HOST + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 8000) for n in range(8)) + b"\r\n",
    ],
    ids=["same host", "an old client", "64 KiB"],
)
def test_everything_else_is_not(data: bytes) -> None:
    assert checked(data).path in {"/", "/v1/search"}


@pytest.mark.parametrize(
    ("header", "closes"),
    [
        (b"", False),
        (b"Content-Length: 65536\r\n", False),
        (b"Content-Length: 65537\r\n", True),
        (b"Transfer-Encoding: chunked\r\n", True),
    ],
)
def test_a_connection_ends_with_a_body_that_may_be_left_unread(header: bytes, closes: bool) -> None:
    assert checked(LINE + HOST + header + b"\r\n").should_close() is closes


def test_broken_chunks_are_the_callers_mistake() -> None:
    with pytest.raises(MalformedRequest, match="chunks"):
        checked(LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n").body.read()


def test_a_silent_body_is_too_slow() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 50_000))
        theirs.sendall(LINE + HOST + b"Content-Length: 5\r\n\r\nab")
        with pytest.raises(RequestTooSlow):
            checked(ours).body.read()


def test_a_connection_without_a_descriptor_waits_and_the_worker_lives(capfd: pytest.CaptureFixture[str]) -> None:
    worker = Worker.__new__(Worker)
    worker.log = WorkerLog(Config())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            worker.accept(listener)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        listener.accept()[0].close()  # it is still in the backlog
    assert "no room for another connection: Too many open files" in capfd.readouterr().err


def test_a_setting_that_a_worker_cannot_use_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    log = WorkerLog(Config())
    try:
        raise ConfigurationError("the embedding model is not in the cache")
    except ConfigurationError:
        log.exception("Exception in worker process")
    said = capfd.readouterr().err
    assert "Configuration error" in said
    assert "Traceback" not in said


def test_what_never_reached_the_application_is_told_to_any_client() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker.__new__(Worker)
        worker.log = WorkerLog(Config())
        worker.handle_error(None, ours, None, LimitRequestHeaders("limit request headers size"))
        head, _, body = theirs.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    problem = json.loads(body)
    assert problem["detail"] == problem["message"] == problem["error"]["message"]
    assert problem["error"]["code"] == "request-header-fields-too-large"
