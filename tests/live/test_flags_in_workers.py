"""Feature flags in real gunicorn workers: each follows the file by itself, and ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.gateway.flag_file import shipped

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 3

PROGRAM = """
import json, os, sys
from gunicorn.app.base import BaseApplication
from app.config import load_settings
from app.gateway.flags import Flags
from app.store.filters import Scope

class Server(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", sys.argv[1])
        self.cfg.set("workers", int(sys.argv[2]))
        self.cfg.set("worker_class", "gthread")
        self.cfg.set("control_socket_disable", True)
        self.cfg.set("loglevel", "warning")
        self.cfg.set("worker_exit", lambda server, worker: flags.close())

    def load(self):
        global flags
        flags = Flags(load_settings().flags)
        def answer(environ, start_response):
            found = flags.features(Scope("a"))
            body = json.dumps({"pid": os.getpid(), "rerank": found.rerank, "warnings": flags.warnings()}).encode()
            start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
            return [body]
        return answer

Server().run()
"""


@pytest.fixture
def flags_file(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    path.write_bytes(shipped().dump())
    return path


@pytest.fixture
def service(flags_file: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "BRAID_FLAGS_FILE": str(flags_file), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, str(WORKERS)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield f"http://{address}", process
        finally:
            if process.poll() is None:
                process.kill()


def states(url: str) -> dict[int, tuple[bool, bool]]:
    """Of each worker: whether `rerank` is on, and whether it warns."""
    found: dict[int, tuple[bool, bool]] = {}
    until = time.monotonic() + 120
    while len(found) < WORKERS:
        assert time.monotonic() < until, "not all workers answer"
        try:
            answer = httpx2.get(url, trust_env=False, timeout=60).json()
        except httpx2.TransportError:
            time.sleep(0.1)
            continue
        found[answer["pid"]] = (answer["rerank"], bool(answer["warnings"]))
    return found


def wait_for(url: str, wanted: tuple[bool, bool]) -> None:
    until = time.monotonic() + 120
    while set(states(url).values()) != {wanted}:
        assert time.monotonic() < until, f"not all workers came to {wanted}"


def test_every_worker_follows_the_file_and_ends_well(
    service: tuple[str, subprocess.Popen[str]], flags_file: Path
) -> None:
    url, process = service
    wait_for(url, (True, False))
    data = json.loads(flags_file.read_bytes())
    data["flags"]["rerank"]["default"] = False
    flags_file.write_text(json.dumps(data))
    wait_for(url, (False, False))
    flags_file.write_text("{")
    wait_for(url, (False, True))
    flags_file.write_bytes(shipped().dump())
    wait_for(url, (True, False))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Warning:" not in errors
