"""Workers that stop, are replaced, or freeze: no answer is cut, and the service goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from app.config import Settings
from tests.conftest import running_braid
from tests.nginx import behind_nginx
from tests.service import Service, read_all, running_service, wait_for
from tests.slow_app import LOOP_TIMEOUT
from tests.unit.generation.endpoint import Write, chunk, complete, endpoint

SLOW = "tests.slow_app"
LARGE = 64 * 1024 * 1024
"""Bytes of its answer at `/large`."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOOP_TIMEOUT, "8")


@pytest.fixture
def two_workers(impatient: None) -> Iterator[Service]:
    with running_service(SLOW, workers="2", concurrency="2", queue="0", threads="1") as service:
        yield service


def stream(service: Service, seconds: float, begun: threading.Event | None = None) -> list[str]:
    """The lines of a stream; the connection is broken when it raises."""
    with service.client() as client, client.stream("GET", "/stream", params={"seconds": seconds}) as answer:
        found = []
        for line in answer.iter_lines():
            found.append(line)
            if begun is not None:
                begun.set()
        return found


def get(service: Service, path: str) -> str:
    answer = httpx2.get(service.url + path, timeout=120, trust_env=False)
    assert answer.status_code == 200
    return answer.text


def whole(lines: list[str]) -> bool:
    return lines[-1] == "end" and lines[1:-1] == [f"line {number}" for number in range(len(lines) - 2)]


def test_a_stop_lets_streams_end_and_takes_nobody_new() -> None:
    with running_service(SLOW) as service, ThreadPoolExecutor(4) as pool:
        begun = [threading.Event() for _ in range(3)]
        streams = [pool.submit(stream, service, 6, event) for event in begun]
        for event in begun:
            assert event.wait(60)
        idle = service.connect()  # must not hold the stop up
        service.process.terminate()
        wait_for(lambda: _refuses(service), "a stopping service took a connection", 30)
        assert service.process.poll() is None  # it is refused although the streams go on
        assert not any(future.done() for future in streams)
        for future in streams:
            lines = future.result()
            assert whole(lines)
            assert len(lines) == 32
        assert service.process.wait(60) == 0
        idle.close()


def _tokens_for_eight_seconds(write: Write, _: threading.Event) -> None:
    for number in range(40):
        write(chunk(f"word{number} "))
        time.sleep(0.2)
    for event in complete("[1]"):
        write(event)


def test_stopping_braid_up_lets_a_language_models_answer_end(node_settings: Settings) -> None:
    with endpoint(_tokens_for_eight_seconds) as model, running_braid(env={"BRAID_LLM_URL": model.url}) as up:
        with httpx2.Client(base_url=up["url"], timeout=120, trust_env=False) as client:
            added = {"document_id": "d1", "text": "The ferry to the island sails at nine."}
            assert client.post("/v1/documents", json=added).status_code == 200
            body = {"query": "when does the ferry sail", "stream": True}
            with client.stream("POST", "/v1/answer", json=body) as answer:
                text = ""
                for piece in answer.iter_text():
                    if "word0" in piece:
                        os.kill(up["pid"], signal.SIGTERM)
                    text += piece
        words = [f"word{number} " in text for number in range(40)]
        assert all(words)
        assert "event: done" in text
        assert "event: error" not in text


def _refuses(service: Service) -> bool:
    try:
        service.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_connection_that_is_kept_does_not_hold_a_stop_up() -> None:
    with (
        running_service(SLOW, timeout_ms="600000") as service,  # which may drain for ten minutes
        service.connect() as kept,
        service.connect() as begun,
    ):
        kept.sendall(b"GET /pid HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        begun.sendall(b"GET /pid HTTP/1.1\r\nHo")
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert read_all(begun) == b""


def test_replacing_workers_cuts_no_answer() -> None:
    with running_service(
        SLOW, workers="2", worker_max_requests="20", concurrency="4", queue="0", threads="1"
    ) as service:
        first = {process.pid for process in service.workers()}
        pids: set[str] = set()
        stop = threading.Event()

        def ask() -> int:
            count = 0
            while not stop.is_set():
                with service.client() as client:  # a connection each
                    answer = client.get("/pid")
                    assert answer.status_code == 200
                    pids.add(answer.text)
                    count += 1
            return count

        def keep_streaming() -> int:
            count = 0
            while not stop.is_set():
                assert whole(stream(service, 1.5))
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            askers = [pool.submit(ask) for _ in range(2)]
            streamers = [pool.submit(keep_streaming) for _ in range(2)]
            try:
                every = (*askers, *streamers)
                wait_for(lambda: any(f.done() for f in every) or len(pids) >= 4, "no worker was replaced", 200)
            finally:
                stop.set()
            assert all(future.result() > 0 for future in (*askers, *streamers))
        assert "is replaced after" in service.said
        assert not first & {process.pid for process in service.workers()} or len(pids) >= 4


def test_a_frozen_worker_is_replaced_and_the_other_serves_meanwhile(two_workers: Service) -> None:
    wait_for(lambda: len(two_workers.workers()) == 2, "one worker answers before the other is there")
    frozen, healthy = two_workers.workers()
    os.kill(frozen.pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: not psutil.pid_exists(frozen.pid), "the frozen worker was not replaced")
    took = time.monotonic() - began
    wait_for(lambda: len(two_workers.workers()) == 2, "there is no new worker")
    pids = {process.pid for process in two_workers.workers()}
    assert frozen.pid not in pids
    assert healthy.pid in pids
    assert int(get(two_workers, "/pid")) in pids
    print(f"replaced after {took:.1f} s")


@pytest.mark.usefixtures("impatient")
def test_a_busy_worker_is_left_alone() -> None:
    with running_service(SLOW) as service, ThreadPoolExecutor(4) as pool:
        (worker,) = service.workers()
        # longer than a silent worker is given; one that computes all the while, and one that streams
        asked = [pool.submit(get, service, "/busy?seconds=13") for _ in range(2)]
        streamed = pool.submit(stream, service, 12)
        assert all(future.result() == "done" for future in asked)
        assert whole(streamed.result())
        assert [process.pid for process in service.workers()] == [worker.pid]
        assert "WORKER TIMEOUT" not in service.said


def test_a_killed_master_takes_its_workers_along() -> None:
    with running_service(SLOW) as service:
        (worker,) = service.workers()
        service.process.kill()
        service.process.wait()
        wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker lives on")


def test_who_reads_nothing_of_the_answer_is_cut_off() -> None:
    with (
        running_service(SLOW, concurrency="1", queue="0", threads="1", writes="1") as service,
        contextlib.ExitStack() as stack,
    ):
        silent = [_asks_for_much(service, stack) for _ in range(10)]  # as many as there are threads
        assert get(service, "/healthz") == "ok"  # which waits until one of the threads is free again
        (worker,) = service.workers()
        wait_for(lambda: len(worker.net_connections("tcp")) == 1, "connections were left open")
        for raw in silent:
            assert len(read_all(raw)) < LARGE
        assert "Traceback" not in service.said


def test_behind_nginx_who_reads_too_slowly_holds_no_thread_and_is_cut_off() -> None:
    with (
        running_service(SLOW, concurrency="1", queue="0", threads="1", writes="1") as service,
        behind_nginx(service.port, send_timeout="3s") as chain,
        contextlib.ExitStack() as stack,
    ):
        slow = [_asks_for_much(chain, stack) for _ in range(12)]
        with ThreadPoolExecutor(1) as pool:
            trickle = pool.submit(_read_slowly, slow[0])
            assert get(chain, "/healthz") == "ok"
            trickle.result()
        for raw in slow[1:]:
            assert len(read_all(raw)) < LARGE
        assert get(chain, "/healthz") == "ok"


def _asks_for_much(service: Service, stack: contextlib.ExitStack) -> socket.socket:
    raw = stack.enter_context(service.connect(receive_buffer=4096))
    raw.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return raw


def _read_slowly(raw: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while raw.recv(512):
            time.sleep(0.2)


def test_who_waits_too_long_for_a_thread_is_told_to_come_back_and_probes_are_not() -> None:
    """Else the line grows without end under more load than the service bears, and all who stand in it come too late."""
    with (
        running_service(
            SLOW, concurrency="1", queue="0", threads="1", writes="1", trusted_proxies="127.0.0.1"
        ) as service,
        behind_nginx(service.port) as chain,
        ThreadPoolExecutor(41) as pool,
    ):

        def ask(_: int) -> httpx2.Response:
            return httpx2.post(f"{chain.url}/v1/search", params={"seconds": 3}, timeout=120, trust_env=False)

        asked = [pool.submit(ask, number) for number in range(40)]
        time.sleep(1)
        probe = pool.submit(get, chain, "/healthz")
        answers = [future.result() for future in asked]
        assert probe.result() == "ok"
    told = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in told} == {429}
    assert len(told) >= 20, "there are ten threads"
    assert {answer.headers["Retry-After"] for answer in told} == {"1"}
    assert {answer.json()["type"] for answer in told} == {"urn:braid:problem:overloaded"}
