"""A data folder of OpenSearch 2.19 opened by 3.6: noticed, and well again after `braid reindex`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.api.factory import create_app
from app.api.services import Services
from app.commands import reindex as reindex_command
from app.config import Settings, load_settings
from app.dev.checks import examine
from app.dev.node import start_cluster
from app.errors import InvalidInput
from app.ingest.records import ready_document
from app.ingest.single import ingest_document
from app.passage import Hit
from app.search.request import SearchRequest
from app.serving.opening import open_store
from app.store.client import READ_ALIAS, Cluster
from app.store.documents import refresh
from app.store.filters import Scope
from app.store.passages import TOKEN_VECTORS
from app.store.reindex import reindex
from app.store.rendering import FIRST_INDEX, render

NATIVE = Path(__file__).resolve().parents[4] / "shared" / "native"
NEXT_INDEX = "braid-passages-000002"
TEXTS = {
    "pump": "The pump is primed with glycol before the winter, and its valve is closed by hand.",
    "bridge": "The bridge is inspected each spring; a loose bolt is replaced on the same day.",
    "bread": "Sourdough bread rises for a night, and is baked in a hot oven with steam.",
}
QUERY = "How is the glycol pump primed?"


@contextmanager
def running(release: str, folder: Path, native: Path | None) -> Iterator[Settings]:
    """The settings of a service beside a node of this release on the folder."""
    machine = load_settings(opensearch_version=release, knn_lib=native and native / _BUILD[release]).machine
    with start_cluster(machine, data_dir=folder, heap_mb=512) as node:
        yield load_settings(opensearch_url=node.url, opensearch_timeout_s=60, timeout_ms=60_000)


_BUILD = {"2.19": "2.19.1.0", "3.6": "3.6.0.0"}


@contextmanager
def opened(settings: Settings) -> Iterator[Services]:
    services = Services.open(settings)
    try:
        yield services
    finally:
        services.close()


def put(services: Services, texts: dict[str, str]) -> None:
    """Write documents in this process: starting the service's own for it takes longer than the rest."""
    for key, text in texts.items():
        document = ready_document({"document_id": key, "text": text}, tenant="default", source_id="tests")
        ingest_document(
            document,
            settings=services.settings,
            cluster=services.cluster,
            encoder=services.encoder,
            scope=Scope("default"),
        )
    refresh(services.cluster)


def search(services: Services) -> tuple[dict[str, Hit], float]:
    """The hits by document, and the weight of the dense leg."""
    found = services.search_service.search(SearchRequest(query=QUERY), Scope("default"))
    assert found.weight is not None
    return {hit.document_id: hit for hit in found.hits}, found.weight.alpha


def scores(hits: dict[str, Hit], name: str) -> dict[str, float]:
    """One of the stages' scores of each document that has it."""
    return {key: score for key, hit in hits.items() if (score := getattr(hit, name)) is not None}


def tokens(cluster: Cluster) -> dict[str, Any]:
    body = {"query": {"match_all": {}}, "docvalue_fields": [TOKEN_VECTORS], "_source": False}
    hits = cluster.request("POST", f"/{READ_ALIAS}/_search", body=body)["hits"]["hits"]
    return {hit["_id"]: hit["fields"][TOKEN_VECTORS] for hit in hits}


def warnings(services: Services) -> list[str]:
    report: Any = create_app(services).test_client().get("/readyz").json
    assert report["problems"] == []
    return [item for item in report["warnings"] if "Redis" not in item]


@pytest.mark.timeout(900)  # three starts of a node
@pytest.mark.parametrize("variant", ["faiss-exact", pytest.param("faiss-hnsw", marks=pytest.mark.graphs)])
def test_an_upgrade_is_noticed_and_mended(
    node_settings: Settings, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    native = NATIVE if variant == "faiss-hnsw" else None
    if native is not None and not native.is_dir():
        pytest.skip("the native FAISS libraries are not at hand: ../shared/native")
    with tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running("2.19", folder, native) as settings:
            store = open_store(settings)
            store.put()
            if native is not None:  # the node would build no graph for so few
                threshold = {"index.knn.advanced.approximate_threshold": 0}
                store.cluster.request("PUT", f"/{FIRST_INDEX}/_settings", body=threshold)
            with opened(settings) as services:
                put(services, TEXTS)
                assert warnings(services) == []
                before, weight = search(services)
            packed = tokens(store.cluster)
            assert len(packed) == len(before) == len(TEXTS)
            store.cluster.request("POST", f"/{FIRST_INDEX}/_flush")
            store.cluster.close()

        with running("3.6", folder, native) as settings:
            cluster = Cluster(settings.opensearch)
            with opened(settings) as services:
                (warning,) = warnings(services)  # at once, so within five seconds
                assert warning.startswith(f"upgraded index: reindex. index {FIRST_INDEX}")
                for part in ("by l2", "2.19.1", "3.6.0", "`braid reindex` (docs/upgrading.md)"):
                    assert part in warning
                (finding,) = [item for item in examine(settings) if item.check == "upgrade"]
                assert finding.status == "warning"
                assert "braid reindex" in finding.remedy
                upgraded, _ = search(services)
                assert scores(upgraded, "lexical") == pytest.approx(scores(before, "lexical"), rel=1e-5)
                assert scores(upgraded, "dense") != pytest.approx(scores(before, "dense"), rel=1e-2)

                with pytest.raises(InvalidInput, match="ingest the sources again"):
                    reindex(
                        cluster, render(settings.with_values(embedding_model="e5-small-v2"), variant, 384), None, print
                    )
                monkeypatch.setenv("BRAID_OPENSEARCH_URL", settings.opensearch.url or "")
                done = CliRunner().invoke(reindex_command.command, [], catch_exceptions=False)
                assert done.exit_code == 0, done.output
                assert f"{NEXT_INDEX} has taken the place of {FIRST_INDEX}: {len(TEXTS)} passages" in done.output
                assert tokens(cluster) == packed

            with opened(settings) as services:
                assert warnings(services) == []
                after, same = search(services)
                assert same == pytest.approx(weight, abs=1e-4)
                assert list(after) == list(before)
                for name in ("score", "lexical", "dense", "fused", "rerank"):
                    assert scores(after, name) == pytest.approx(scores(before, name), rel=1e-4), name
                client = create_app(services).test_client()
                assert client.patch("/v1/documents/pump", json={"acl": ["hr"]}).status_code == 200
                assert client.delete("/v1/documents/bread").status_code == 204
                put(services, {"new": "A valve."})
                cluster.request("DELETE", f"/{FIRST_INDEX}")
                assert set(search(services)[0]) == {"pump", "bridge", "new"}
            cluster.close()


@pytest.mark.timeout(600)
@pytest.mark.sweep
def test_legacy_bm25_is_no_difference_and_gives_the_old_scale(node_settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running("3.6", folder, None) as settings:
            store = open_store(settings)
            store.put()
            with opened(settings) as services:
                put(services, TEXTS)
                before, weight = search(services)
            store.cluster.request("POST", f"/{FIRST_INDEX}/_close")
            legacy = {"index.similarity.braid_bm25.type": "LegacyBM25"}
            store.cluster.request("PUT", f"/{FIRST_INDEX}/_settings", body=legacy)
            store.cluster.request("POST", f"/{FIRST_INDEX}/_open", params={"wait_for_active_shards": "1"})
            with opened(settings) as services:
                assert warnings(services) == []
                after, same = search(services)
            assert same == pytest.approx(weight, abs=1e-4)
            assert scores(after, "lexical") == pytest.approx(scores(before, "lexical"), rel=1e-5)
            store.cluster.close()
