"""Writes that are too many, too large, or meet parts that hang or die: what their callers are told, and all others.

The bounds are small here, so that few writes reach them; how it goes under load is benchmarks/starvation.py's.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from app.config import load_settings
from app.gateway.keys import KeyRing
from app.store import job_records as records
from app.store.client import Cluster
from benchmarks.proxy import FaultyProxy
from tests.service import Service, read_all, running_service, status_of

SECRET = "a-secret-of-more-than-32-characters-for-keys"
SENTENCE = "The ferry leaves the harbour at noon and comes back with the tide. "
JOB = SENTENCE * 900
"""More than BRAID_JOB_BYTES, and some seconds of embedding."""
SETTINGS = {
    "keys_secret": SECRET,
    "api_key": "the-operators-key-of-this-test",
    "tenant": "bounded",
    "writes": "4",
    "write_timeout_s": "15",
    "write_bytes": "1000000",
    "max_text_bytes": "600000",
    "job_bytes": "50000",
    # a hang would last for as long, were it not for the deadline
    "opensearch_timeout_s": "600",
}


@dataclass
class Rig:
    """A service, callers of it, and the proxy before its OpenSearch."""

    service: Service
    proxy: FaultyProxy
    cluster: Cluster
    callers: dict[str, httpx2.Client]

    def processes(self, part: str) -> list[psutil.Process]:
        """The service's processes whose command names `part`."""
        found = psutil.Process(self.service.process.pid).children(recursive=True)
        return [process for process in found if part in " ".join(_command(process))]

    @property
    def temporary(self) -> Path:
        """Where the service has its temporary files."""
        return self.service.log.parent

    @property
    def ingesting(self) -> psutil.Process:
        (found,) = self.processes("app.serving.ingest_worker")
        return found

    def held(self, of: str) -> float:
        """What writes hold of one of their bounds."""
        wanted = f'write_bounds_held{{of="{of}"}} '
        lines = self.callers["operator"].get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))

    def job(self, location: str, caller: str = "ann") -> dict[str, Any]:
        answer = self.callers[caller].get(location)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def stored(self, name: str, caller: str = "ann") -> httpx2.Response:
        return self.callers[caller].post("/v1/documents", json={"document_id": name, "text": SENTENCE + name})

    def slow(self, caller: str, length: int) -> socket.socket:
        """A write whose body does not come."""
        raw = self.service.connect()
        key = self.callers[caller].headers["Authorization"]
        head = f"POST /v1/documents HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {key}\r\n"
        raw.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode() + b" " * 70_000
        )
        return raw


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def rig(braid_up: dict[str, Any]) -> Iterator[Rig]:
    url, redis_url = braid_up["opensearch_url"], braid_up["redis_url"]
    with ExitStack() as stack:
        port = urlsplit(url).port or 0
        proxy = stack.enter_context(FaultyProxy(port))
        ours = SETTINGS | {"opensearch_url": url.replace(f":{port}", f":{proxy.port}"), "redis_url": redis_url}
        service = stack.enter_context(running_service("tests.impatient_cli", **ours))
        settings = load_settings(opensearch_url=url, keys_secret=SECRET)
        cluster = Cluster(settings.opensearch)
        stack.callback(cluster.close)
        ring = KeyRing(settings.access, cluster)
        tokens = {"operator": SETTINGS["api_key"]}
        for name, tenant, roles in (
            ("ann", "bounded", ["ingest", "search"]),
            ("bob", "bounded", ["ingest", "search"]),
            ("chief", "bounded", ["admin"]),
            ("stranger", "another", ["admin"]),
        ):
            _, tokens[name] = ring.create(name=name, tenant=tenant, roles=roles)
        callers = {
            name: stack.enter_context(
                httpx2.Client(
                    base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=300, trust_env=False
                )
            )
            for name, token in tokens.items()
        }
        found = Rig(service, proxy, cluster, callers)
        until(lambda: found.stored("first").status_code == 200, "the service's ingest process did not start in time")
        yield found


@pytest.mark.parametrize("form", ["json", "file", "asked for"])
def test_a_large_document_is_stored_by_a_job_that_its_owner_can_follow(rig: Rig, form: str) -> None:
    ann = rig.callers["ann"]
    if form == "json":
        answer = ann.post("/v1/documents", json={"document_id": form, "text": JOB})
    elif form == "file":
        answer = ann.post(
            "/v1/documents", files={"file": ("ferry.md", f"# Ferry\n\n{JOB}")}, data={"document_id": form}
        )
    else:
        body = {"document_id": form, "text": SENTENCE}
        answer = ann.post("/v1/documents", json=body, headers={"Prefer": "wait=1, respond-async"})
        assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.status_code == 202, answer.text
    location = answer.headers["Location"]
    assert location == f"/v1/jobs/{answer.json()['id']}"
    until(lambda: rig.job(location)["state"] not in {"queued", "running"}, "the job did not end")
    job = rig.job(location)
    assert job["state"] == "done", job["error"]
    assert job["result"]["status"] == "created"
    assert job["result"]["passages"] == job["progress"] == len(ann.get(f"/v1/documents/{form}").json()["passages"])
    assert [rig.callers[name].get(location).status_code for name in ("chief", "operator")] == [200, 200]
    assert [rig.callers[name].get(location).status_code for name in ("bob", "stranger")] == [404, 404]
    assert rig.held("jobs") == rig.held("spool_bytes") == 0
    assert list(rig.temporary.glob("braid-spool-*/upload-*")) == []


def test_a_job_whose_document_is_refused_says_why(rig: Rig) -> None:
    answer = rig.callers["ann"].post("/v1/documents", files={"file": ("broken.pdf", b"%PDF-1.7 " + b"x" * 60_000)})
    assert answer.status_code == 202
    until(lambda: rig.job(answer.headers["Location"])["state"] == "failed", "the job did not fail")
    assert rig.job(answer.headers["Location"])["error"]["type"] == "urn:braid:problem:document-rejected"
    large = rig.callers["ann"].post("/v1/documents", files={"file": ("long.txt", SENTENCE * 10_000)})
    until(lambda: rig.job(large.headers["Location"])["state"] == "failed", "the job did not fail")
    assert "BRAID_MAX_TEXT_BYTES" in rig.job(large.headers["Location"])["error"]["detail"]


def test_no_job_of_a_wrong_id_is_looked_for(rig: Rig) -> None:
    for wrong in ("0" * 32, "_search", "..%2f_all", "A" * 32):
        assert rig.callers["operator"].get(f"/v1/jobs/{wrong}").status_code == 404


def test_surplus_writes_are_told_to_come_back_and_nobody_else_notices(rig: Rig) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(contextlib.closing(rig.slow("ann", 100_000))) for _ in range(2)]
        until(lambda: rig.held("places") == 2, "the slow writes have no places")
        refused = rig.stored("surplus")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "BRAID_WRITES" in refused.json()["detail"]
        # what one caller may have is not all: the next one finds room
        slow.append(stack.enter_context(contextlib.closing(rig.slow("bob", 100_000))))
        until(lambda: rig.held("places") == 3, "the other caller has no place")
        assert rig.stored("surplus", "bob").status_code == 429
        slow.append(stack.enter_context(contextlib.closing(rig.slow("chief", 100_000))))
        until(lambda: rig.held("places") == 4, "the third caller has no place")
        for caller in ("ann", "stranger"):
            assert rig.stored("surplus", caller).status_code == 429
            assert rig.callers[caller].patch("/v1/documents/first", json={"acl": ["x"]}).status_code == 429
            assert rig.callers[caller].delete("/v1/documents/first").status_code == 429
        assert rig.callers["ann"].get("/healthz").status_code == 200
        for _ in range(5):
            assert rig.callers["ann"].post("/v1/search", json={"query": "ferry", "cache": False}).status_code == 200
        # who sends too slowly loses its place
        assert [status_of(read_all(raw)) for raw in slow] == [408] * 4
    until(lambda: rig.held("places") == 0, "places were not given back")
    assert rig.stored("surplus").status_code == 200


def test_bodies_in_memory_are_bounded_and_long_texts_refused_by_name(rig: Rig) -> None:
    ann = rig.callers["ann"]
    refused = ann.post("/v1/documents", json={"document_id": "long", "text": "x" * 600_000})
    assert refused.status_code == 413
    assert "BRAID_MAX_TEXT_BYTES" in refused.json()["detail"]
    with ExitStack() as stack:
        for caller in ("ann", "bob"):
            stack.enter_context(contextlib.closing(rig.slow(caller, 450_000)))
        until(lambda: rig.held("body_bytes") == 900_000, "the bodies are not counted")
        # searches count, too, when they are large; small bodies always find room
        for path, body in (
            ("/v1/documents", {"document_id": "large", "text": "x" * 200_000}),
            ("/v1/search", {"query": "ferry", "filter": {"source_id": ["x" * 200_000]}}),
        ):
            answer = rig.callers["chief"].post(path, json=body)
            assert answer.status_code == 429, answer.text
            assert "BRAID_WRITE_BYTES" in answer.json()["detail"]
        assert rig.held("body_bytes") <= int(SETTINGS["write_bytes"])
        assert rig.stored("small", "chief").status_code == 200
    until(lambda: rig.held("body_bytes") == 0, "bytes were not given back")


def test_a_write_is_answered_by_its_deadline_although_opensearch_hangs(rig: Rig) -> None:
    assert rig.stored("hanging").status_code == 200
    rig.proxy.fail("hang")
    try:
        answers = [
            rig.callers["operator"].post("/v1/documents", json={"document_id": "hanging", "text": "another"}),
            rig.callers["operator"].patch("/v1/documents/hanging", json={"acl": ["hr"]}),
            rig.callers["operator"].delete("/v1/documents/hanging"),
        ]
    finally:
        rig.proxy.heal()
    for answer in answers:
        assert answer.status_code in {503, 504}, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
    until(lambda: rig.stored("hanging").status_code == 200, "writes did not come back")
    until(lambda: rig.held("places") == 0, "places were not given back")


def test_a_killed_ingest_process_fails_what_it_had_and_the_next_one_works(rig: Rig) -> None:
    location = rig.callers["ann"].post("/v1/documents", json={"document_id": "killed", "text": JOB}).headers["Location"]
    until(lambda: rig.job(location)["state"] == "running", "the job did not begin")
    rig.ingesting.kill()
    until(lambda: rig.job(location)["state"] == "failed", "the job did not fail")
    error = rig.job(location)["error"]
    assert error["type"] == "urn:braid:problem:ingest-interrupted"
    assert "send it again" in error["detail"]
    until(lambda: rig.stored("after").status_code == 200, "no other ingest process took its place")
    again = rig.callers["ann"].post("/v1/documents", json={"document_id": "killed", "text": JOB})
    until(lambda: rig.job(again.headers["Location"])["state"] == "done", "the second try did not end")


def test_a_frozen_ingest_process_does_not_hold_its_callers(rig: Rig) -> None:
    frozen = rig.ingesting
    frozen.send_signal(signal.SIGSTOP)
    answer = rig.stored("frozen")
    assert answer.status_code in {503, 504}, answer.text
    assert rig.callers["ann"].get("/healthz").status_code == 200
    until(lambda: not frozen.is_running(), "the frozen process was not replaced")
    until(lambda: rig.stored("frozen").status_code == 200, "writes did not come back")


def test_the_job_of_a_killed_worker_is_lost_and_leaves_nothing(rig: Rig) -> None:
    location = rig.callers["ann"].post("/v1/documents", json={"document_id": "lost", "text": JOB}).headers["Location"]
    until(lambda: rig.job(location)["state"] == "running", "the job did not begin")
    ingesting = rig.ingesting
    worker = ingesting.parent()
    assert worker is not None
    (spool,) = rig.temporary.glob("braid-spool-*")
    worker.kill()
    until(lambda: not ingesting.is_running(), "the ingest process outlived its worker")
    until(lambda: _answers(rig), "the worker was not replaced")
    until(lambda: rig.job(location)["state"] == "lost", "the job is not lost")
    assert "send the document again" in rig.job(location)["error"]["detail"]
    assert not spool.exists()
    assert rig.stored("lost").status_code == 200


def test_a_stopped_service_says_that_its_jobs_are_lost(rig: Rig, braid_up: dict[str, Any]) -> None:
    ours = SETTINGS | {name: braid_up[name] for name in ("opensearch_url", "redis_url")}
    with running_service(**ours) as service, service.client() as client:
        headers = {"Authorization": f"Bearer {SETTINGS['api_key']}"}
        body = {"document_id": "stopped", "text": JOB * 5}
        answer = client.post("/v1/documents", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
    record = records.get(rig.cluster, answer.json()["id"])
    assert record is not None
    assert record["state"] == "lost"
    assert record["error"]["type"] == "urn:braid:problem:ingest-interrupted"


def _answers(rig: Rig) -> bool:
    try:
        return rig.callers["ann"].get("/healthz").status_code == 200
    except httpx2.HTTPError:
        return False
