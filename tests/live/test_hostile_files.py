"""Files that fail, crash, hang or bomb their parser: over HTTP, in `braid ingest`, and when their worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.service import Service, running_service, wait_for
from tests.unit.ingest.formats.hostile import ENDS, HANGS, RAISES, SECRET, TAKES_ALL

REASONS = (
    dict.fromkeys(RAISES, "parser-failed")
    | dict.fromkeys(ENDS, "broken")
    | dict.fromkeys(TAKES_ALL, "out-of-memory")
    | dict.fromkeys(HANGS, "too-slow")
    | {"rejects": "empty", "recurses": "broken", "rubbish": "parser-failed"}
)
ONE_OF_EACH = [
    "Mute",
    "SystemExit",
    "exit 0",
    "SIGSEGV",
    "SIGKILL",
    "allocates much",
    "holds the interpreter",
    "recurses",
]
HOSTILE = "tests.hostile_cli"
MEMORY = {"ingest_parse_memory_bytes": str(512 * 1024**2)}
"""Small enough to be used up long before a parser's time is, on a busy machine too."""


def hostile_service(up: dict[str, Any], **more: str) -> AbstractContextManager[Service]:
    """A service with parsers that misbehave, beside the one of `braid up`, on its store."""
    return running_service(HOSTILE, opensearch_url=up["opensearch_url"], **more)


def upload(service: Service, content: str) -> Any:
    with service.client() as client:
        return client.post("/v1/documents", files={"file": ("a.txt", content.encode())})


@pytest.mark.live
@pytest.mark.parametrize(
    "chosen", [ONE_OF_EACH, pytest.param([*REASONS], marks=pytest.mark.sweep)], ids=["one of each", "all"]
)
def test_each_costs_its_own_upload_and_is_a_problem_document_with_a_reason(
    braid_up: dict[str, Any], chosen: list[str]
) -> None:
    """`tests/unit/ingest/formats/test_pool.py` plays all of them, without the service around the pool."""
    for acts, seconds in ((set(chosen) - HANGS.keys(), "60"), (set(chosen) & HANGS.keys(), "2")):
        with hostile_service(braid_up, ingest_parse_timeout_s=seconds, **MEMORY) as service:
            for act in sorted(acts):
                answer = upload(service, act)
                assert answer.status_code == 422, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                problem = answer.json()
                assert (problem["type"], problem["reason"]) == ("urn:braid:problem:document-rejected", REASONS[act]), (
                    act
                )
                assert SECRET not in answer.text
            if seconds == "60":
                assert upload(service, "A good file.").status_code == 200


@pytest.mark.live
def test_each_costs_one_line_of_the_report_and_the_run_goes_on(braid_up: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for number, act in enumerate(ONE_OF_EACH):
        (folder / f"{number:02}-bad.txt").write_text(act)
        (folder / f"{number:02}-good.txt").write_text(f"The good file number {number} is about valve {number}.")
    environment = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", HOSTILE, "ingest", str(folder), "--json"],
        env={**environment, "BRAID_INGEST_PARSE_TIMEOUT_S": "10", "BRAID_INGEST_PARSE_MEMORY_BYTES": "536870912"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["new"] == len(ONE_OF_EACH)
    assert sorted(item["reason"] for item in report["failed"]) == sorted(REASONS[act] for act in ONE_OF_EACH)
    assert SECRET not in done.stdout + done.stderr


def hanging(process: psutil.Process, act: str) -> bool:
    """Whether a process is a parser that has its file; a process of the same worker may end while it is looked at."""
    try:
        if "spawn_main" not in " ".join(process.cmdline()) or process.cpu_times().user <= 0.1:
            return False
        return act == "holds the interpreter" or process.status() != psutil.STATUS_RUNNING
    except psutil.NoSuchProcess:
        return False


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.live
@pytest.mark.parametrize("act", HANGS)
def test_parsers_and_uploads_end_with_a_worker_that_is_killed(braid_up: dict[str, Any], act: str) -> None:
    with hostile_service(braid_up) as service:
        folder = service.log.parent
        before = {path.name for path in folder.rglob("*")}
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(upload, service, act)
            (worker,) = service.workers()

            found: list[psutil.Process] = []

            def hangs() -> bool:
                found[:] = [child for child in worker.children(recursive=True) if hanging(child, act)]
                return bool(found)

            wait_for(hangs, "no parser hangs")
            parser = found[0]
            worker.send_signal(signal.SIGKILL)
            wait_for(lambda: gone(parser), "the parser outlives its worker")
            with pytest.raises(httpx2.HTTPError):
                sent.result()
        wait_for(lambda: service.workers() and service.workers() != [worker], "no worker took its place")
        wait_for(
            lambda: not [name for name in {path.name for path in folder.rglob("*")} - before if "upload" in name],
            "the upload outlives its worker",
        )
