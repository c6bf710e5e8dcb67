"""The service as its own processes (`braid serve`, gunicorn), without a store; and sockets that say anything to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil

from app.dev.ports import ReservedPorts

NO_STORE = "http://127.0.0.1:9"
"""Nothing listens there: probes, embeddings and rerank answer, searches say 503."""


class Service:
    """A running `braid serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    @property
    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """The worker processes, oldest first."""
        found = psutil.Process(self.process.pid).children()
        return sorted(found, key=lambda process: process.create_time())

    def client(self) -> httpx2.Client:
        """A client of it."""
        return httpx2.Client(base_url=self.url, timeout=120, trust_env=False)

    def metric(self, line: str) -> float:
        """The value of a metric, given with its labels; 0 when there is none yet."""
        for found in httpx2.get(f"{self.url}/metrics", timeout=60, trust_env=False).text.splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        """A connection that nothing has been said on."""
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(120)
        try:
            raw.connect(("127.0.0.1", self.port))
        except OSError:
            raw.close()
            raise
        return raw

    def say(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own, and read until the service closes it."""
        with self.connect() as raw:
            raw.sendall(data)
            return read_all(raw)


def read_all(raw: socket.socket) -> bytes:
    """Everything until the other side closes, or breaks, the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := raw.recv(65536):
            found += data
    return found


def status_of(answer: bytes) -> int:
    """The status of the first answer in these bytes; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def wait_for(condition: object, what: str, seconds: float = 90) -> None:
    """Wait until `condition()` is true; fails with `what` when it never is."""
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@contextlib.contextmanager
def running_service(module: str = "app.cli", **settings: str) -> Iterator[Service]:
    """`braid serve` on a free port; ended at the end, by force when it has to be.

    Args:
        module: another program with the same server, such as `tests.slow_app`.
        settings: such as `rate_limit_key="5/minute"`.
    """
    with tempfile.TemporaryDirectory(prefix="braid-test-") as folder, ReservedPorts(1) as reserved:
        port = reserved.numbers[0]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
        inherited["TMPDIR"] = folder
        ours = {
            "opensearch_url": NO_STORE,
            "query_log": "off",
            "audit_log": "off",
            "port": str(port),
            "write_timeout_s": "120",
            **settings,
        }
        env = inherited | {f"BRAID_{name.upper()}": value for name, value in ours.items()}
        log = Path(folder) / "service.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "serve"], env=env, stdout=sink, stderr=sink, start_new_session=True
            )
        service = Service(process, port, log)
        try:
            wait_for(lambda: answers(service), "the service did not start")
            yield service
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answers(service: Service) -> bool:
    """Whether it is up."""
    assert service.process.poll() is None, service.said
    try:
        return httpx2.get(f"{service.url}/healthz", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False
