"""`braid distil --mine-only` against a real node: the candidates are those of a search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.config import Settings
from tests.conftest import running_braid

pytestmark = pytest.mark.live

ANIMALS = ("otter", "badger", "heron", "adder", "marten", "kestrel")
QUERIES = [f"where does the {animal} sleep" for animal in ANIMALS]


@pytest.fixture(scope="module")
def up(node_settings: Settings) -> Iterator[dict[str, Any]]:
    with running_braid() as started:
        with httpx2.Client(base_url=started["url"], timeout=60) as client:
            for number in range(40):
                animal = ANIMALS[number % len(ANIMALS)]
                text = f"Note {number}. The {animal} sleeps in place number {number}, and nobody disturbs the {animal}."
                body = {"document_id": f"d{number}", "title": f"About the {animal} {number}", "text": text}
                assert client.post("/v1/documents", json=body).status_code == 200
            secret = {
                "document_id": "secret",
                "title": "Secret otter",
                "text": "The otter sleeps elsewhere.",
                "acl": ["boss"],
            }
            assert client.post("/v1/documents", json=secret).status_code == 200
        yield started


def braid_distil(up: dict[str, Any], out: Path, *arguments: str, code: int = 0, **env: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    command = [sys.executable, "-m", "app.cli", "distil", "--out", str(out), "--mine-only", *arguments]
    whole = {**inherited, "BRAID_DATA_DIR": str(up["data"]), "COLUMNS": "200", **env}
    done = subprocess.run(command, capture_output=True, text=True, env=whole, check=False, timeout=180)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def mined(out: Path) -> dict[str, list[dict[str, Any]]]:
    lines = (out / "mining" / "candidates.jsonl").read_text().splitlines()
    return {row["query"]: row["candidates"] for row in map(json.loads, lines)}


def test_candidates_are_what_a_search_finds_in_its_order(up: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\n".join(QUERIES))
    braid_distil(up, tmp_path / "out", "--queries", str(tmp_path / "q.txt"), "--candidates", "12")
    found = mined(tmp_path / "out")
    assert list(found) == QUERIES
    with httpx2.Client(base_url=up["url"], timeout=60) as client:
        for query in QUERIES[:3]:
            answer = client.post("/v1/search", json={"query": query, "size": 12, "rerank": False}).json()
            assert [item["id"] for item in found[query]] == [item["id"] for item in answer["results"]]
            assert found[query][0]["score"] == pytest.approx(answer["results"][0]["score"], abs=1e-5)
            first = answer["results"][0]
            assert found[query][0]["text"] == f"{first['title']} {first['text']}"


def test_another_tenant_finds_nothing_and_is_told(up: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\n".join(QUERIES))
    said = braid_distil(
        up, tmp_path / "out", "--queries", str(tmp_path / "q.txt"), code=1, BRAID_TENANT="somebody-else"
    )
    assert "no query found a passage" in said


def test_queries_are_made_of_passages_where_nobody_asked(up: dict[str, Any], tmp_path: Path) -> None:
    said = braid_distil(up, tmp_path / "out", "--source", "passages", "--most", "30")
    assert "30 made from passages" in said
    found = mined(tmp_path / "out")
    assert len(found) == 30
    assert all(len(candidates) >= 5 for candidates in found.values())


def test_the_query_log_with_what_was_said_of_results(up: dict[str, Any], tmp_path: Path) -> None:
    with httpx2.Client(base_url=up["url"], timeout=60) as client:
        answer = client.post("/v1/search", json={"query": "a heron asleep", "size": 5}).json()
        liked = answer["results"][1]["id"]
        body = {"query_id": answer["query_id"], "result_id": liked, "label": "relevant"}
        assert client.post("/v1/feedback", json=body).status_code == 202
    said = braid_distil(up, tmp_path / "out", "--source", "log")
    assert "queries of the query log" in said
    labels = {item["id"]: item.get("label") for item in mined(tmp_path / "out")["a heron asleep"]}
    assert labels[liked] == 1.0
