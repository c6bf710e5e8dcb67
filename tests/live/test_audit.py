"""The audit log of the real service: every line whole, by several workers, through rotation, and without contents."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.service import Service, running_service, wait_for

pytestmark = pytest.mark.live

KEY = "the-operators-key-of-these-tests"


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[tuple[Service, Path]]:
    path = tmp_path / "audit.jsonl"
    with running_service(workers="2", api_key=KEY, audit_log=str(path)) as service:
        yield service, path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_lines_of_several_workers_are_whole_through_rotation(audited: tuple[Service, Path]) -> None:
    service, path = audited
    stop = threading.Event()
    turned = 0

    def ask(number: int) -> int:
        count = 0
        while not stop.is_set():
            identity = f"r{number}-{count}"
            headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": identity}
            answer = httpx2.get(
                f"{service.url}/v1/documents/{'d' * 400}", headers=headers, timeout=120, trust_env=False
            )
            assert answer.status_code == 503  # there is no store
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, number) for number in range(4)]
        for turned in range(1, 6):
            wait_for(lambda: path.exists() and len(path.read_bytes()) > 4000, "no lines were written")
            path.rename(path.with_suffix(f".{turned}"))
        wait_for(path.exists, "the file was not made anew")
        stop.set()
        counts = [future.result() for future in futures]
    files = [path, *(path.with_suffix(f".{number}") for number in range(1, turned + 1))]
    found = [line["request_id"] for file in files for line in lines(file) if line["action"] == "read-document"]
    assert sorted(found) == sorted(f"r{number}-{index}" for number in range(4) for index in range(counts[number]))


def test_who_is_refused_is_said_and_nothing_that_was_sent(audited: tuple[Service, Path]) -> None:
    service, path = audited
    right = {"Authorization": f"Bearer {KEY}"}
    with service.client() as client:
        client.post("/v1/embeddings", json={"input": ["confidential-text"] * 2}, headers=right)
        client.post("/v1/embeddings", json={"input": "x"}, headers={"Authorization": "Bearer confidential-key"})
        client.get("/v1/models?q=confidential-text", headers={"X-Request-ID": 'a"}\n{"action":"forged"}'[:3]})
        client.post("/v1/documents", json={"document_id": "d\n1", "text": "confidential-text"}, headers=right)
        client.get("/healthz")
    found = lines(path)
    assert [line["action"] for line in found] == ["embed", "denied", "denied", "ingest"]
    assert [line["status"] for line in found][:3] == [200, 401, 401]
    assert found[0]["texts"] == 2
    assert found[0]["name"] == "operator"
    assert (found[1]["asked"], found[1]["name"], found[1]["remote"]) == ("embed", None, "127.0.0.1")
    assert b"confidential" not in path.read_bytes()
    assert KEY.encode() not in path.read_bytes()


def test_a_full_disk_costs_no_request() -> None:
    with running_service(audit_log="/dev/full") as service, service.client() as client:
        for _ in range(5):
            assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
        assert service.said.count("the audit log can't be written") == 1
        assert service.metric('audit_lines_total{outcome="failed"}') == 5


def test_braid_up_keeps_it_beside_its_data(braid_up: dict[str, Any]) -> None:
    path = Path(braid_up["data"]) / "audit.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    with httpx2.Client(base_url=braid_up["url"], timeout=60, trust_env=False) as client:
        added = {"document_id": "audited", "text": "The audited text speaks of sailing.", "source_id": "audit"}
        assert client.post("/v1/documents", json=added).status_code == 200
        asked = {"query": "who speaks of sailing", "filter": {"source_id": ["audit"]}}
        found = client.post("/v1/search", json=asked).json()
        with client.stream("POST", "/v1/answer", json={**asked, "stream": True}) as answer:
            events = answer.read().decode()
        assert client.get("/v1/documents/audited").status_code == 200
        assert client.delete("/v1/documents/audited").status_code == 204
        assert client.delete("/v1/documents/audited").status_code == 404
    wait_for(lambda: sum(line["action"] == "answer" for line in lines(path)) >= 1, "the stream was not said")
    ours = [line for line in lines(path) if line.get("document_id") == "audited"]
    assert [(line["action"], line["status"]) for line in ours] == [
        ("ingest", 200),
        ("read-document", 200),
        ("delete", 204),
        ("delete", 404),
    ]
    assert ours[0]["passages"] == 1
    assert [line.get("outcome") for line in ours] == ["created", None, "deleted", None]
    said = {line["query_id"]: line for line in lines(path) if "query_id" in line}
    assert said[found["query_id"]] | {"results": 1, "action": "search"} == said[found["query_id"]]
    (answered,) = [identity for identity, line in said.items() if line["action"] == "answer" and identity in events]
    assert answered != found["query_id"]
    assert b"sailing" not in path.read_bytes()
