"""The reranker's own server as a process: answers, drains, is killed in the middle of requests, starts again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.reranker_model import write_cross_encoder

QUERY = "boundary layer on a flat plate"
DOCUMENTS = ["wings of birds", "Boundary layers on flat plates", "a plate of fish"]
SLOW = {"query": QUERY, "documents": ["flat plates and boundary layers " * 60] * 1000, "timeout_ms": 60_000}
"""Takes a second or so."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("reranker") / "model")


class Running:
    """A server process and its address."""

    def __init__(self, folder: Path, log: Path, port: int = 0, **settings: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
        command = [sys.executable, "-m", "reranker", "--model", str(folder), "--port", str(port), "--json"]
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [*command, "--threads", "1"],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**inherited, **{f"BRAID_RERANKER_{name}": value for name, value in settings.items()}},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ended with code {self.process.wait()}: {log.read_text()[-2000:]}"
        self.url = str(json.loads(line)["url"])
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        assert json.loads(line)["pid"] == self.process.pid

    def kill(self) -> None:
        """Everything at once, as a machine that fails does."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for child in children:
            child.kill()
        self.process.wait(10)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def running(folder: Path, log: Path, port: int = 0, **settings: str) -> Iterator[Running]:
    server = Running(folder, log, port, **settings)
    try:
        yield server
    finally:
        server.close()


def wait_until_busy(server: Running) -> None:
    ends = time.monotonic() + 20
    while server.client.get("/readyz").json()["pending_pairs"] == 0:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_it_answers_in_both_forms(folder: Path, tmp_path: Path) -> None:
    with running(folder, tmp_path / "log") as server:
        answer = server.client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "top_n": 1})
        assert [item["index"] for item in answer.json()["results"]] == [1]
        assert "total;dur=" in answer.headers["server-timing"]
        answer = server.client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS})
        assert [item["index"] for item in answer.json()] == [1, 2, 0]
        assert server.client.get("/info").json()["provider"] == "cpu"
        assert server.client.get("/healthz").json() == {"status": "ok"}
        assert "reranker_batch_pairs_count" in server.client.get("/metrics").text
        with ThreadPoolExecutor(16) as pool:
            body = {"query": QUERY, "documents": DOCUMENTS}
            answers = list(pool.map(lambda _: server.client.post("/v1/rerank", json=body).json(), range(64)))
        assert all([item["index"] for item in answer["results"]] == [1, 2, 0] for answer in answers)
    assert server.process.returncode == 0


def test_a_full_queue_says_when_to_come_back(folder: Path, tmp_path: Path) -> None:
    with running(folder, tmp_path / "log", MAX_QUEUE_PAIRS="1100") as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.client.post, "/v1/rerank", json=SLOW)
        wait_until_busy(server)
        refused = server.client.post("/v1/rerank", json={**SLOW, "documents": SLOW["documents"][:999]})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        # a small request gets its turn at the next batch, in the middle of the large one
        small = server.client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        assert small.status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200


def test_sigterm_lets_requests_under_way_finish(folder: Path, tmp_path: Path) -> None:
    with running(folder, tmp_path / "log") as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.client.post, "/v1/rerank", json=SLOW)
        wait_until_busy(server)
        server.process.send_signal(signal.SIGTERM)
        assert len(slow.result().json()["results"]) == 1000
        assert server.process.wait(30) == 0


def test_killed_in_the_middle_of_requests_it_starts_again_at_once(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    with running(folder, log, port) as server:
        errors: list[Exception] = []

        def ask() -> None:
            try:
                server.client.post("/v1/rerank", json=SLOW)
            except httpx2.TransportError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until_busy(server)
        server.kill()
        for thread in threads:
            thread.join(20)
        assert len(errors) == 2  # nobody hangs
        with running(folder, log, port) as again:
            assert again.client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS}).status_code == 200


def test_a_worker_that_dies_is_replaced(folder: Path, tmp_path: Path) -> None:
    with running(folder, tmp_path / "log") as server:
        (worker,) = psutil.Process(server.process.pid).children()
        worker.kill()
        ends = time.monotonic() + 30
        while True:
            try:
                if server.client.get("/healthz").status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            assert time.monotonic() < ends
            time.sleep(0.1)
        assert server.client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS}).status_code == 200


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "no model.onnx in"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"broken"), "ONNX Runtime can't load"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json in"),
        (lambda folder: write_cross_encoder(folder, labels=2), "num_labels 2"),
    ],
)
def test_a_model_that_can_not_be_served_ends_the_start(tmp_path: Path, break_it: object, said: str) -> None:
    folder = write_cross_encoder(tmp_path / "model")
    assert callable(break_it)
    break_it(folder)
    command = [sys.executable, "-m", "reranker", "--model", str(folder), "--port", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"the reranker cannot start: {said}" in done.stderr or said in done.stderr
    assert "Traceback" not in done.stderr
