"""Behind nginx, clients that say little, slowly or nothing keep the service from nobody, and are cut off."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

import httpx2
import pytest

from tests.nginx import behind_nginx
from tests.service import Service, read_all, running_service, status_of, wait_for

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def small_service() -> Iterator[Service]:
    """With ten threads."""
    with running_service(concurrency="1", queue="0", writes="1", threads="1") as service:
        yield service


@pytest.fixture(scope="module")
def chain(small_service: Service) -> Iterator[Service]:
    """nginx in front of it, less patient than in production."""
    with behind_nginx(small_service.port, client_header_timeout="4s", client_body_timeout="4s") as running:
        yield running


class Dripping:
    """Connections on which a byte is sent now and then, until the service closes them."""

    def __init__(self, service: Service, count: int, begin: bytes, byte: bytes = b"a") -> None:
        self.sockets = [service.connect() for _ in range(count)]
        for raw in self.sockets:
            raw.sendall(begin)
        self._byte = byte
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drip)

    def _drip(self) -> None:
        while not self._stop.wait(0.5):
            for raw in self.sockets:
                with contextlib.suppress(OSError):
                    raw.sendall(self._byte)

    @property
    def open(self) -> int:
        """How many the service has not closed."""
        found = 0
        for raw in self.sockets:
            raw.setblocking(False)
            try:
                found += raw.recv(1, socket.MSG_PEEK) != b""
            except BlockingIOError:
                found += 1
            except ConnectionResetError:
                pass
            raw.settimeout(120)
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for raw in self.sockets:
            raw.close()


def ask(service: Service) -> int:
    answer = httpx2.post(f"{service.url}/v1/embeddings", json={"input": "a"}, timeout=120, trust_env=False)
    return answer.status_code


@pytest.mark.parametrize(
    ("begin", "byte"),
    [
        (b"", b""),
        (b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"a"),
        (HEAD + b"Content-Length: 5000\r\n\r\n", b""),
        (HEAD + b"Content-Length: 500000\r\n\r\n{", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2", b""),
    ],
    ids=["idle", "dripping head", "small body", "large body", "chunks"],
)
def test_slow_requests_cost_no_thread_and_are_cut_off(
    small_service: Service, chain: Service, begin: bytes, byte: bytes
) -> None:
    count = 60  # far more than there are threads
    (worker,) = small_service.workers()
    with Dripping(chain, count, begin, byte) as slow:
        assert [ask(chain) for _ in range(5)] == [200] * 5
        assert slow.open == count  # all of that went on while they were there
        assert len(worker.net_connections("tcp")) < 20
        wait_for(lambda: slow.open == 0, "a slow client was not cut off")
        assert all(read_all(raw) == b"" for raw in slow.sockets)


def test_dripping_bodies_cost_no_thread(chain: Service) -> None:
    """nginx waits for them as long as each byte comes in time; they hold a connection of nginx each."""
    with Dripping(chain, 60, HEAD + b"Content-Length: 500000\r\n\r\n{") as slow:
        assert [ask(chain) for _ in range(5)] == [200] * 5
        assert slow.open == 60


@pytest.mark.parametrize("begin", [b"GET /v1/models HTTP/1.1\r\nX-Slow: ", HEAD + b"Content-Length: 500000\r\n\r\n{"])
def test_without_nginx_silent_clients_hold_a_thread_for_ten_seconds_at_most(
    small_service: Service, begin: bytes
) -> None:
    with Dripping(small_service, 10, begin, b"") as silent:  # as many as there are threads
        assert ask(small_service) == 200
        assert {status_of(read_all(raw)) for raw in silent.sockets} <= {0, 408}
    assert "Traceback" not in small_service.said


def test_a_slow_upload_that_keeps_up_is_read(small_service: Service) -> None:
    body = b'{"input": "a"' + b" " * 400_000 + b"}"
    with small_service.connect() as raw:
        raw.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 20_000):  # in 14 s: longer than a body that stands still is waited for
            raw.sendall(body[start : start + 20_000])
            time.sleep(0.7)
        assert status_of(read_all(raw)) == 200


def test_who_does_not_close_does_not_hold_the_others_up(small_service: Service) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(small_service.connect()) for _ in range(50)]
        for raw in held:
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        # gunicorn would listen to each for two seconds, one after the other, and do nothing else
        assert ask(small_service) == 200
        for raw in held:
            assert status_of(read_all(raw)) == 200
        (worker,) = small_service.workers()
        wait_for(lambda: len(worker.net_connections("tcp")) <= 3, "connections were left open")


def test_more_idle_connections_than_a_worker_has_room_for_keep_nobody_out(chain: Service) -> None:
    count = 1200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 300:
        if hard != resource.RLIM_INFINITY and hard < count + 300:
            pytest.skip(f"this process may have {hard} files open only")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 300, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            raw = stack.enter_context(chain.connect())
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")  # kept alive: 75 s each
            assert raw.recv(65536).startswith(b"HTTP/1.1 200")
        assert ask(chain) == 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
