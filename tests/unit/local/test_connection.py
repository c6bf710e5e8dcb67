"""When a thread may have a request: it has arrived, or nothing is to be waited for; whatever pieces it came in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Overloaded
from app.local.connection import BUFFERED_BODY, HEAD_LIMIT, LINE_LIMIT, Connection

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def connection() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    conn = Connection(Config(), ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
    try:
        yield conn, theirs
    finally:
        conn.close()
        theirs.close()


def ready_after(data: bytes, step: int) -> int | None:
    """After how many bytes it is ready; None for never."""
    with connection() as (conn, _):
        for start in range(0, len(data), step):
            conn.feed(data[start : start + step])
            if conn.ready():
                return min(len(data), start + step)
    return None


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (GET, len(GET)),
        (POST + b"Content-Length: 5\r\n\r\nabcde", len(POST) + 26),
        (POST + b"content-length:5\r\n\r\nabcde", len(POST) + 25),
        (POST + b"Content-Length: 5\r\n\r\nabcd", None),
        (b"\r\n" + GET, len(GET) + 2),
        (POST + b"X-A: b\r\n", None),
        # for the thread: how long the body is, is the parser's matter
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", len(POST) + 30),
        (POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", len(POST) + 43),
        (POST + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n", len(POST) + 40),
        (POST + b"Content-Length: +5\r\n\r\n", len(POST) + 22),
        (POST + b"Content-Length: %d\r\n\r\n" % (BUFFERED_BODY + 1), len(POST) + 25),
        # for the parser to refuse, which it does at once
        (b"GET / HTTP/1.1\n", 15),
        (POST + b"X-A: b\n", len(POST) + 7),
        (b"\x16\x03\x01\n", 4),
    ],
)
def test_ready_at_the_byte_that_completes_it(data: bytes, at: int | None) -> None:
    assert ready_after(data, 1) == at
    assert (ready_after(data, len(data)) is None) is (at is None)


@settings(max_examples=200)
@given(
    body=st.binary(max_size=200),
    headers=st.lists(st.sampled_from([b"X-A: b", b"X-Long: " + b"c" * 300, b"Cookie: \xff"]), max_size=4),
    step=st.integers(1, 100),
)
def test_the_pieces_make_no_difference(body: bytes, headers: list[bytes], step: int) -> None:
    lines = b"".join(line + b"\r\n" for line in headers)
    data = POST + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert ready_after(data, step) is not None
    assert ready_after(data[:-1], step) is None


def test_a_head_without_an_end_is_not_collected_for_ever() -> None:
    found = ready_after(POST + b"".join(b"X-%d: a\r\n" % number for number in range(20_000)), 100)
    assert found is not None
    assert found <= HEAD_LIMIT + 200
    found = ready_after(b"A" * 100_000, 100)
    assert found is not None
    assert found <= LINE_LIMIT + 200
    with connection() as (conn, _):
        conn.feed(POST + b"X-A: a\r\n" * 10_000)
        assert conn.ready()
        assert isinstance(conn.refusal, LimitRequestHeaders)


def test_the_parser_begins_with_what_was_collected_and_keeps_the_rest() -> None:
    with connection() as (conn, _):
        conn.feed(GET + GET)
        assert conn.ready()
        conn.init()
        assert next(conn.parser).path == "/"
        conn.expect(conn.parser.unreader.take_buffered())
        assert conn.ready()
        conn.init()
        assert next(conn.parser).path == "/"
        assert conn.idle


def test_without_room_for_another_slow_body_it_is_refused() -> None:
    with connection() as (conn, theirs):
        places = threading.Semaphore(0)
        conn.sock.setblocking(True)
        conn.sock.begin(places)
        with pytest.raises(Overloaded, match="slow uploads"):
            conn.sock.recv(10)
        theirs.sendall(b"there")
        assert conn.sock.recv(10) == b"there"  # what is there is not waited for
        conn.sock.finish()
        assert not places.acquire(blocking=False)  # a place that was not taken is not given back


def test_a_place_is_given_back() -> None:
    with connection() as (conn, theirs):
        places = threading.Semaphore(1)
        conn.sock.setblocking(True)
        conn.sock.begin(places)
        threading.Timer(0.1, theirs.sendall, [b"late"]).start()
        assert conn.sock.recv(10) == b"late"
        assert not places.acquire(blocking=False)
        conn.sock.finish()
        assert places.acquire(blocking=False)
