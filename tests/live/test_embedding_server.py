"""An encoder elsewhere, in a process of its own: another Braid embeds for a service that has no model."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from app.store.reference_vectors import template_name
from benchmarks.proxy import FaultyProxy
from tests.service import running_service, wait_for
from tests.unit.embedding.embedding_server import embedding_server
from tests.writers.encoder import WordEncoder

pytestmark = pytest.mark.live

MODEL = "all-MiniLM-L6-v2"
SOURCE = "embedding-server"
WORDS = itertools.count()


@pytest.fixture
def store(braid_up: dict[str, Any]) -> Iterator[httpx2.Client]:
    """The node; the kept vectors are removed at the end."""
    with httpx2.Client(base_url=braid_up["opensearch_url"], timeout=60, trust_env=False) as client:
        yield client
        client.delete(f"/_component_template/{template_name(MODEL)}")


@pytest.fixture
def upstream(braid_up: dict[str, Any]) -> Iterator[FaultyProxy]:
    """The way to the Braid that embeds."""
    with FaultyProxy(urlsplit(braid_up["url"]).port or 0) as proxy:
        yield proxy


@pytest.fixture
def settings(braid_up: dict[str, Any], upstream: FaultyProxy) -> dict[str, str]:
    return {
        "opensearch_url": braid_up["opensearch_url"],
        "redis_url": braid_up["redis_url"],
        "embedding_url": f"http://127.0.0.1:{upstream.port}",
        "embedding_send_input_type": "true",
    }


def apply_templates(settings: dict[str, str], data: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    env |= {f"BRAID_{name.upper()}": value for name, value in settings.items()} | {"BRAID_DATA_DIR": str(data)}
    command = [sys.executable, "-m", "app.cli", "templates", "apply"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def write(client: httpx2.Client, name: str) -> httpx2.Response:
    body = {"document_id": f"{SOURCE}-{name}", "text": f"Gulls nest on the {name} in May.", "source_id": SOURCE}
    return client.post("/v1/documents", json=body)


def change_readers(client: httpx2.Client, name: str) -> httpx2.Response:
    """Add a group; each call adds another one, so that there is something to change."""
    return client.patch(f"/v1/documents/{SOURCE}-{name}", json={"acl": ["public", f"group-{next(WORDS)}"]})


def search(client: httpx2.Client) -> tuple[list[str], list[str]]:
    """The documents that a new query finds, and what was degraded: no query comes from a cache."""
    body = {"query": f"where do seabirds breed, number {next(WORDS)}", "filter": {"source_id": [SOURCE]}}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert not found["results"] or "heads_ms" in found["timings"], "shown without heads"
    return [item["document_id"] for item in found["results"]], [item["reason"] for item in found["degraded"]]


def warnings(client: httpx2.Client) -> str:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text
    return "\n".join(answer.json()["warnings"])


def test_another_braid_embeds_and_another_model_is_neither_indexed_nor_searched_with(
    braid_url: str, settings: dict[str, str], upstream: FaultyProxy, store: httpx2.Client, tmp_path: Path
) -> None:
    with httpx2.Client(base_url=braid_url, timeout=60, trust_env=False) as there:
        wait_for(lambda: write(there, "cliff").status_code == 200, "a busy machine stored no document")
    with running_service(**settings) as service, service.client() as client:
        assert search(client) == ([f"{SOURCE}-cliff"], [])
        assert "no reference vectors of 'all-MiniLM-L6-v2' are kept" in warnings(client)
        refused = write(client, "pier")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:braid:problem:read-only-index")
        assert change_readers(client, "cliff").status_code == 200, "a revocation waits for reference vectors"
        applied = apply_templates(settings, tmp_path)  # compares with what the other one has stored
        assert applied.returncode == 0, applied.stderr
        wait_for(lambda: write(client, "pier").status_code == 200, "documents are refused although vectors are kept")
        body = {"query": {"term": {"source_id": SOURCE}}, "_source": ["embedding", "document_id"]}
        hits = store.post("/braid-passages/_search", json=body).json()["hits"]["hits"]
        assert {len(hit["_source"]["embedding"]) for hit in hits} == {384}
        assert sorted(search(client)[0]) == [f"{SOURCE}-cliff", f"{SOURCE}-pier"]
        upstream.fail("refuse")
        assert any(reason.startswith("encoder-failed") for reason in search(client)[1])
        upstream.heal()
        wait_for(lambda: search(client)[1] == [], "the embedding server is not used again")
        with embedding_server() as other:
            other.vectors_of = lambda texts: WordEncoder(384).encode_passages(texts).tolist()
            good, upstream.target = upstream.target, int(other.url.rpartition(":")[2])
            upstream.fail("refuse")  # ends the connections to the earlier one
            upstream.heal()
            wait_for(lambda: write(client, "roof").status_code == 503 and other.texts, "the other model is not asked")
            wrong = write(client, "roof")
            assert "other vectors than those kept for 'all-MiniLM-L6-v2'" in wrong.json()["detail"]
            assert client.get(f"/v1/documents/{SOURCE}-roof").status_code == 404
            assert change_readers(client, "cliff").status_code == 200, "a revocation waits for the earlier model"
            assert client.delete(f"/v1/documents/{SOURCE}-pier").status_code == 204
            assert client.get(f"/v1/documents/{SOURCE}-pier").status_code == 404
            assert "other vectors" in apply_templates(settings, tmp_path).stderr
            with running_service(**settings) as fresh, fresh.client() as second:
                said = warnings(second)
                assert "searches are lexical only: the embedding server answers other vectors" in said
                assert any(reason.startswith("encoder-failed") for reason in search(second)[1])
                upstream.target = good
                upstream.fail("refuse")
                upstream.heal()
                wait_for(lambda: "vectors" not in warnings(second), "the earlier model is not taken again")
                assert search(second)[1] == []
