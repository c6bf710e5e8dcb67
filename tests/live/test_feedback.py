"""The query log and feedback on a running service: logged, judged, exported, hashed, blocked, purged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.evaluation.dataset import load_set
from app.feedback.ids import made_at, new_query_id
from app.feedback.judged_set import export
from app.store import query_log
from app.store.client import Cluster
from tests.conftest import running_braid

pytestmark = pytest.mark.live

DOCUMENTS = {
    "keys": "The spare key of the boiler room hangs behind the blue door.",
    "tea": "The tea room opens at seven and closes when the last guest leaves.",
    "crane": "The harbour crane lifts forty tonnes at most.",
}


@pytest.fixture(scope="module")
def up(node_settings: object) -> Iterator[dict[str, Any]]:
    with running_braid() as found:
        yield found


@pytest.fixture(scope="module")
def service(up: dict[str, Any]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=up["url"], timeout=60, trust_env=False) as client:
        add_documents(client)
        yield client


@pytest.fixture(scope="module")
def cluster(up: dict[str, Any]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=up["opensearch_url"], timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def store(up: dict[str, Any]) -> Iterator[Cluster]:
    from app.config import load_settings

    found = Cluster(load_settings(opensearch_url=up["opensearch_url"]).opensearch)
    yield found
    found.close()


def add_documents(client: httpx2.Client) -> None:
    for name, text in DOCUMENTS.items():
        answer = client.post("/v1/documents", json={"document_id": name, "title": name, "text": text})
        assert answer.status_code == 200, answer.text


def search(client: httpx2.Client, query: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/search", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def say(client: httpx2.Client, status: int = 202, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/feedback", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def month() -> str:
    return f"braid-queries-{datetime.now(UTC):%Y.%m}"


def logged(cluster: httpx2.Client, document_id: str) -> dict[str, Any]:
    """A document of the log by its id, waited for."""
    until = time.monotonic() + 10
    while True:
        found = cluster.get(f"/{month()}/_doc/{document_id}").json()
        if found.get("found"):
            source: dict[str, Any] = found["_source"]
            return source
        assert time.monotonic() < until, found
        time.sleep(0.05)


def metric(client: httpx2.Client, outcome: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f'query_log_total{{outcome="{outcome}"}}'):
            return float(line.split()[-1])
    return 0.0


def braid(up: dict[str, Any], *arguments: str, code: int = 0, **env: str) -> str:
    whole = {"BRAID_DATA_DIR": str(up["data"]), "PATH": "/usr/local/bin:/usr/bin:/bin", "COLUMNS": "200", **env}
    command = [sys.executable, "-m", "app.cli", "feedback", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=whole, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_search_is_logged_without_a_word_of_its_passages(service: httpx2.Client, cluster: httpx2.Client) -> None:
    found = search(service, "Where is the spare key?", size=2, explain=True)
    entry = logged(cluster, found["query_id"])
    assert (entry["kind"], entry["route"], entry["mode"], entry["fusion"]) == ("query", "search", "hybrid", "linear")
    assert entry["query"] == "Where is the spare key?"
    assert [result["id"] for result in entry["results"]] == [item["id"] for item in found["results"]]
    assert [result["rank"] for result in entry["results"]] == [1, 2]
    assert entry["results"][0]["score"] == pytest.approx(found["results"][0]["score"])
    assert entry["results"][0]["lexical"] == pytest.approx(found["results"][0]["scores"]["lexical"])
    assert entry["alpha"] == pytest.approx(found["explanation"]["fusion"]["alpha"])
    assert (entry["total"], entry["index_generation"]) == (found["total"], found["index_generation"])
    assert entry["total_ms"] == pytest.approx(found["timings"]["total_ms"])
    assert "blue door" not in json.dumps(entry)
    assert entry["tenant"] == "default"
    assert "principals" not in entry
    names = cluster.get("/_cat/indices/braid-queries-*?format=json&h=index").json()
    assert [item["index"] for item in names] == [month()]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_logged_with_whether_it_abstained(
    service: httpx2.Client, cluster: httpx2.Client, stream: bool
) -> None:
    for question, abstained in (("When does the tea room open?", False), ("Who signed the treaty of Utrecht?", True)):
        answer = service.post("/v1/answer", json={"query": question, "stream": stream})
        text = answer.text.rsplit("data: ", 1)[-1] if stream else answer.text
        found = json.loads(text)
        entry = logged(cluster, found["query_id"])
        assert (entry["route"], entry["abstained"], entry["query"]) == ("answer", abstained, question)
        assert entry["total_ms"] == pytest.approx(found["timings"]["total_ms"])


def test_feedback_is_stored_when_the_answer_comes_and_a_changed_mind_replaces_it(
    service: httpx2.Client, cluster: httpx2.Client
) -> None:
    found = search(service, "spare key boiler room")
    first = found["results"][0]
    said = say(service, query_id=found["query_id"], result_id=first["id"], label="relevant", comment="that is it")
    assert said["warnings"] == []
    kept = cluster.get(f"/{month()}/_doc/{said['feedback_id']}").json()["_source"]  # at once: 202 means stored
    assert (kept["kind"], kept["label"], kept["comment"]) == ("feedback", "relevant", "that is it")
    assert (kept["document_id"], kept["rank"], kept["query_id"]) == (first["document_id"], 1, found["query_id"])
    assert kept["query_hash"] == logged(cluster, found["query_id"])["query_hash"]
    again = say(service, query_id=found["query_id"], result_id=first["id"], label="irrelevant")
    assert again["feedback_id"] == said["feedback_id"]
    kept = cluster.get(f"/{month()}/_doc/{said['feedback_id']}").json()
    assert (kept["_version"], kept["_source"]["label"], "comment" in kept["_source"]) == (2, "irrelevant", False)
    whole = say(service, query_id=found["query_id"], label="relevant")
    assert whole["feedback_id"] != said["feedback_id"]


def test_unknown_queries_foreign_results_and_wrong_bodies_are_refused(service: httpx2.Client) -> None:
    first, second = search(service, "harbour crane", size=1), search(service, "tea room", size=1)
    other = second["results"][0]["id"]
    assert other != first["results"][0]["id"]
    problem = say(service, 422, query_id=first["query_id"], result_id=other, label="relevant")
    assert problem["errors"][0]["loc"] == ["body", "result_id"]
    assert other in problem["detail"]
    problem = say(service, 404, query_id=new_query_id(), label="relevant")
    assert "BRAID_QUERY_LOG_DAYS" in problem["detail"]
    say(service, 404, query_id="0" * 32, label="relevant")
    say(service, 404, query_id="019abcde12347abc8123456789abcdef", label="relevant")
    assert say(service, 422, query_id="x", label="relevant")["errors"][0]["loc"] == ["body", "query_id"]
    assert say(service, 422, query_id="0" * 32, label="relevant", stars=5)["errors"][0]["loc"] == ["body", "stars"]
    assert service.get("/v1/feedback").status_code == 405


def test_the_log_becomes_a_judged_set_that_reads_back(
    service: httpx2.Client, up: dict[str, Any], tmp_path: Path
) -> None:
    question = "Which crane lifts forty tonnes?"
    for spelling, label in ((question, "relevant"), (question.upper(), "relevant"), (f" {question} ", "irrelevant")):
        found = search(service, spelling, mode="lexical")
        result = next(item for item in found["results"] if item["document_id"] == "crane")
        say(service, query_id=found["query_id"], result_id=result["id"], label=label)
    tie = search(service, "tonnes", mode="dense")
    other = search(service, "tonnes", mode="dense")
    for found, label in ((tie, "relevant"), (other, "irrelevant")):
        say(service, query_id=found["query_id"], result_id=found["results"][0]["id"], label=label)
    say(service, query_id=tie["query_id"], label="relevant")

    folder = tmp_path / "judged"
    report = json.loads(braid(up, "export", str(folder), "--json"))
    assert report["dropped"]["votes-tie"] == 2
    assert report["dropped"]["about-the-answer-as-a-whole"] >= 1
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "pairs.jsonl", "qrels.tsv", "queries.jsonl"]
    meta = json.loads((folder / "meta.json").read_text())
    assert {name: meta[name] for name in report} == report
    assert (meta["tenant"], meta["unit"], meta["min_votes"]) == ("default", "document", 1)
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    assert len(queries) == report["queries"] == len({item["_id"] for item in queries})
    assert len([item for item in queries if item["text"].strip().casefold() == question.casefold()]) == 1

    judged = load_set(folder)
    wanted = next(key for key, text in judged.queries.items() if text.casefold() == question.casefold())
    assert judged.qrels[wanted] == {"crane": 1}
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    mine = [pair for pair in pairs if pair["query_id"] == wanted]
    assert (mine[0]["document_id"], mine[0]["label"], mine[0]["source"]) == ("crane", 1, "feedback")
    assert all(pair["source"] == "results" and pair["label"] is None for pair in mine[1:])
    assert "forty tonnes at most" not in (folder / "pairs.jsonl").read_text()

    few = json.loads(braid(up, "export", str(tmp_path / "few"), "--min-votes", "3", "--unit", "passage", "--json"))
    assert few["judgements"] == 1
    assert mine[0]["passage_id"] in (tmp_path / "few" / "qrels.tsv").read_text()
    assert "nothing of tenant" in braid(up, "export", str(tmp_path / "none"), "--since", "2999-01-01", code=1)
    assert "nothing of tenant 'other'" in braid(up, "export", str(tmp_path / "none"), code=1, BRAID_TENANT="other")
    (tmp_path / "file").write_text("x")
    assert "can't be written" in braid(up, "export", str(tmp_path / "file" / "below"), code=1)


def test_an_export_reads_page_after_page(
    service: httpx2.Client, store: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(service, "one more")
    time.sleep(1)
    whole = export(store, "default", tmp_path / "whole")
    monkeypatch.setattr(query_log, "_HASHES", 2)
    monkeypatch.setattr(query_log, "_PAGE", 1)
    assert export(store, "default", tmp_path / "paged") == whole
    for name in ("queries.jsonl", "qrels.tsv", "pairs.jsonl"):
        assert (tmp_path / "paged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_figures_are_those_of_the_log(service: httpx2.Client, up: dict[str, Any]) -> None:
    search(service, "nothing", filter={"document_id": ["no-such-document"]})
    time.sleep(1)
    found = json.loads(braid(up, "stats", "--json"))
    assert found["queries"] >= 2
    assert found["without_results"] >= 1
    assert 0 <= found["relevant"] <= found["feedback"]
    if found["feedback"]:
        assert found["relevant_share"] == found["relevant"] / found["feedback"]
    assert all(0 < route["p50_ms"] <= route["p95_ms"] for route in found["latency"])
    assert "share relevant" in braid(up, "stats")
    assert json.loads(braid(up, "stats", "--json", BRAID_TENANT="other"))["queries"] == 0


def test_only_months_of_the_past_are_purged(service: httpx2.Client, cluster: httpx2.Client, up: dict[str, Any]) -> None:
    kept = search(service, "kept")
    logged(cluster, kept["query_id"])
    assert cluster.put("/braid-queries-2020.01").status_code == 200
    assert "would remove braid-queries-2020.01" in braid(up, "purge", "--dry-run")
    assert json.loads(braid(up, "purge", "--json"))["removed"] == ["braid-queries-2020.01"]
    assert "no month" in braid(up, "purge")
    assert cluster.get("/braid-queries-2020.01").status_code == 404
    assert logged(cluster, kept["query_id"])


def test_a_log_that_can_not_be_written_fails_no_search_and_is_counted(
    service: httpx2.Client, cluster: httpx2.Client
) -> None:
    logged(cluster, search(service, "before")["query_id"])
    before = metric(service, "failed")
    block = {"index.blocks.write": True}
    assert cluster.put(f"/{month()}/_settings", json=block).status_code == 200
    try:
        found = search(service, "spare key")
        assert found["results"]
        assert found["degraded"] == []
        until = time.monotonic() + 10
        while metric(service, "failed") <= before:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert service.get("/readyz").status_code == 200
        problem = say(service, 404, query_id=found["query_id"], label="relevant")
        assert problem["title"] == "Not found"
    finally:
        assert cluster.put(f"/{month()}/_settings", json={"index.blocks.write": None}).status_code == 200
    written = metric(service, "written")
    assert logged(cluster, search(service, "after")["query_id"])
    until = time.monotonic() + 10
    while metric(service, "written") <= written:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_hashed_leaves_no_text_in_the_index_and_the_last_queries_are_written_at_the_end(
    service: httpx2.Client, up: dict[str, Any], cluster: httpx2.Client, tmp_path: Path
) -> None:
    """A second service on the same cluster, of another tenant, with two workers, stopped right after a search."""
    env = {
        "BRAID_OPENSEARCH_URL": up["opensearch_url"],
        "BRAID_TENANT": "quiet",
        "BRAID_QUERY_LOG": "hashed",
        "BRAID_QUERY_LOG_KEY": "0123456789abcdef",
        "BRAID_WORKERS": "2",
    }
    with running_braid(env=env) as quiet, httpx2.Client(base_url=quiet["url"], timeout=60, trust_env=False) as client:
        add_documents(client)
        for _ in range(8):  # feedback may reach the worker that did not answer the search: it waits for the other's
            found = search(client, "where hangs the xylophone key", size=1)
            said = say(
                client,
                query_id=found["query_id"],
                result_id=found["results"][0]["id"],
                label="relevant",
                comment="xylophone indeed",
            )
            assert "comment was not kept" in said["warnings"][0]
        # somebody else's query is not there for another tenant
        say(service, 404, query_id=found["query_id"], label="relevant")
        last = search(client, "the xylophone again")
    entry = logged(cluster, last["query_id"])
    assert (entry["tenant"], len(entry["query_hash"]), "query" in entry) == ("quiet", 64, False)
    cluster.post(f"/{month()}/_refresh")
    body = {"query": {"term": {"tenant": "quiet"}}, "size": 100}
    whole = cluster.post(f"/{month()}/_search", json=body).text
    assert json.loads(whole)["hits"]["total"]["value"] == 17
    assert "xylophone" not in whole.lower()
    assert len({hit["_source"]["query_hash"] for hit in json.loads(whole)["hits"]["hits"]}) == 2
    report = json.loads(braid(up, "export", str(tmp_path), "--json", BRAID_TENANT="quiet"))
    assert (report["queries"], report["queries_without_text"], report["dropped"]) == (0, 2, {"query-hashed": 8})
    when = made_at(last["query_id"])
    assert when is not None
    assert entry["timestamp"].startswith(f"{when:%Y-%m-%dT%H:%M}")


def test_off_logs_nothing_and_takes_no_feedback(up: dict[str, Any], cluster: httpx2.Client) -> None:
    env = {"BRAID_OPENSEARCH_URL": up["opensearch_url"], "BRAID_TENANT": "off", "BRAID_QUERY_LOG": "off"}
    with running_braid(env=env) as off, httpx2.Client(base_url=off["url"], timeout=60, trust_env=False) as client:
        found = search(client, "anything")
        problem = say(client, 501, query_id=found["query_id"], label="relevant")
        assert "BRAID_QUERY_LOG=off" in problem["detail"]
    cluster.post("/braid-queries-*/_refresh")
    count = cluster.post("/braid-queries-*/_count", json={"query": {"term": {"tenant": "off"}}})
    assert count.json()["count"] == 0
