"""Files that fail, crash, hang or bomb their parser: over HTTP, in `braid ingest`, and when their worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.service import Service, running_service, wait_for
from tests.unit.ingest.parse.hostile import ACTS, ENDS, HANGS, RAISES, SECRET, TAKES_ALL

REASONS = (
    dict.fromkeys(RAISES, "parser-failed")
    | dict.fromkeys(ENDS, "broken")
    | dict.fromkeys(TAKES_ALL, "out-of-memory")
    | dict.fromkeys(HANGS, "too-slow")
    | {"rejects": "empty", "recurses": "broken", "rubbish": "parser-failed"}
)
HOSTILE = "tests.hostile_cli"


def upload(service: Service, content: str) -> Any:
    with service.client() as client:
        return client.post("/v1/documents", files={"file": ("a.txt", content.encode())})


def test_each_costs_its_own_upload_and_is_a_problem_document_with_a_reason() -> None:
    with running_service(HOSTILE, ingest_parse_timeout_s="3") as service:
        for act, reason in REASONS.items():
            answer = upload(service, act)
            assert answer.status_code == 422, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert (answer.json()["type"], answer.json()["reason"]) == ("urn:braid:problem:document-rejected", reason)
            assert SECRET not in answer.text
        assert upload(service, "A good file.").status_code == 503  # it was read: the store is not there


@pytest.mark.live
def test_each_costs_one_line_of_the_report_and_the_run_goes_on(braid_up: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for number, act in enumerate(ACTS):
        (folder / f"{number:02}-bad.txt").write_text(act)
        (folder / f"{number:02}-good.txt").write_text(f"The good file number {number} is about valve {number}.")
    environment = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", HOSTILE, "ingest", str(folder), "--json"],
        env={**environment, "BRAID_INGEST_PARSE_TIMEOUT_S": "3"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["new"] == len(ACTS)
    assert sorted(item["reason"] for item in report["failed"]) == sorted(REASONS.values())
    assert SECRET not in done.stdout + done.stderr


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("act", HANGS)
def test_parsers_and_uploads_end_with_a_worker_that_is_killed(act: str) -> None:
    with running_service(HOSTILE) as service:
        folder = service.log.parent
        before = {path.name for path in folder.rglob("*")}
        with service.connect() as raw:
            content = act.encode()
            body = (
                b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
                + content
                + b"\r\n--b--\r\n"
            )
            head = b"POST /v1/documents HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            raw.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            (worker,) = service.workers()

            def parsers() -> list[psutil.Process]:
                return [child for child in worker.children() if "spawn_main" in " ".join(child.cmdline())]

            wait_for(lambda: parsers() and parsers()[0].cpu_times().user > 0.1, "no parser was started")
            (parser,) = parsers()
            wait_for(
                lambda: act == "holds the interpreter" or parser.status() != psutil.STATUS_RUNNING, "it does not hang"
            )
            worker.send_signal(signal.SIGKILL)
            wait_for(lambda: gone(parser), "the parser outlives its worker")
        wait_for(lambda: service.workers() and service.workers() != [worker], "no worker took its place")
        assert not [name for name in {path.name for path in folder.rglob("*")} - before if "upload" in name]
