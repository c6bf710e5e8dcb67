"""An index that an older Braid made: searched by the same filter, never written, named, and how to write again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient
from rich.console import Console

from app.api.factory import create_app
from app.api.services import Services
from app.config import Settings
from app.dev.checks import examine
from app.errors import StoreReadOnly
from app.ingest.run import IngestOptions
from app.passage import Passage
from app.serving.ingest_paths import ingest_and_report
from app.store import head_audit, templates
from app.store.bulk import bulk_index
from app.store.capabilities import Capabilities
from app.store.client import READ_ALIAS, Cluster
from app.store.documents import refresh
from app.store.filters import Scope, clauses
from app.store.reindex import reindex
from app.store.rendering import FIELDS_TEMPLATE, FIRST_INDEX, RenderedResources
from app.store.versions import tenant_state

FIELDS_2 = Path(__file__).resolve().parents[2] / "data" / "mappings" / "braid-fields-2.json"
"""Of the last Braid whose mapping had version 2, as it was."""
NEXT_INDEX = "braid-passages-000002"


@pytest.fixture
def older(cluster: Cluster, rendered: RenderedResources, make_passage: Callable[..., Passage]) -> Cluster:
    """The node as an older Braid left it, with three documents."""
    resources = [
        replace(item, body=orjson.loads(FIELDS_2.read_bytes())) if item.name == FIELDS_TEMPLATE else item
        for item in rendered.resources
    ]
    for resource in resources:
        cluster.request("PUT", resource.path, body=resource.body)
    cluster.request("PUT", f"/{FIRST_INDEX}", body=rendered.first_index)
    passages = [
        make_passage("for-all", 0, text="The pump is primed with glycol."),
        make_passage("for-hr", 0, text="The pump of the pension fund.", acl=("hr",)),
        make_passage("for-bob", 0, text="The pump of Bob.", acl=("user:bob",)),
    ]
    assert bulk_index(cluster, passages).indexed == 3
    refresh(cluster)
    return cluster


@pytest.fixture
def service(
    older: Cluster, capabilities: Capabilities, rendered: RenderedResources, store_settings: Settings
) -> Iterator[Any]:
    """This version's service on it, after `braid templates apply`."""
    templates.apply(older, capabilities, rendered)
    services = Services.open(store_settings.with_values(timeout_ms=60_000))
    yield create_app(services).test_client()
    services.close()


def search(client: FlaskClient, **filters: Any) -> list[str]:
    body = {"query": "pump", "filter": filters, "cache": False}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return sorted(item["document_id"] for item in answer.json["results"])


def test_apply_leaves_it_and_names_it(older: Cluster, capabilities: Capabilities, rendered: RenderedResources) -> None:
    templates.apply(older, capabilities, rendered)
    drifts, live = templates.compare(older, rendered)
    assert drifts == []
    reason = templates.read_only(live, rendered)
    assert reason is not None
    assert f"{FIRST_INDEX} (version 2)" in reason
    # what it lacks for any other reason is a difference still
    older.request("PUT", f"/{NEXT_INDEX}", body={"aliases": {READ_ALIAS: {}}})
    mapping = older.request("GET", f"/{NEXT_INDEX}/_mapping")[NEXT_INDEX]["mappings"]
    older.request("DELETE", f"/{NEXT_INDEX}")
    for lacking in ("embedding", "acl"):
        old = orjson.loads(orjson.dumps(live.all_indexes[FIRST_INDEX]))
        del old["mappings"]["properties"][lacking]
        broken = templates.LiveIndexes({FIRST_INDEX: old})
        assert {drift.field.split(".")[1] for drift in templates._index_drift(broken, rendered)} == {lacking}
    # and so is the same lack in an index of this version
    new = orjson.loads(orjson.dumps(live.all_indexes[FIRST_INDEX]))
    new["mappings"] = {**new["mappings"], "_meta": mapping["_meta"]}
    lacks = {drift.field for drift in templates._index_drift(templates.LiveIndexes({FIRST_INDEX: new}), rendered)}
    assert "properties.acl_1.type" in lacks


def test_the_filter_finds_in_it_what_it_found(older: Cluster) -> None:
    def ids(scope: Scope) -> set[str]:
        body = {"query": {"bool": {"filter": clauses(scope)}}}
        hits = older.request("POST", f"/{READ_ALIAS}/_search", body=body)["hits"]["hits"]
        return {hit["_source"]["document_id"] for hit in hits}

    assert ids(Scope("default")) == {"for-all", "for-hr", "for-bob"}
    assert ids(Scope("default", frozenset({"hr"}))) == {"for-all", "for-hr"}
    assert ids(Scope("default", frozenset({"user:bob"}))) == {"for-all", "for-bob"}
    assert ids(Scope("default", frozenset())) == {"for-all"}
    assert tenant_state(older, "default", 10.0).users == frozenset({"user:bob"})


def test_it_is_searched_and_not_written(service: FlaskClient, store_settings: Settings, tmp_path: Path) -> None:
    assert search(service) == ["for-all", "for-bob", "for-hr"]
    assert search(service, document_id=["for-hr"]) == ["for-hr"]
    assert search(service, pages=[1]) == []
    assert service.post("/v1/answer", json={"query": "What is the pump primed with?"}).status_code == 200
    assert service.get("/v1/documents/for-hr").json["acl"] == ["hr"]

    ready = service.get("/readyz")
    assert (ready.status_code, ready.json["ready"], ready.json["problems"]) == (200, True, [])
    (warning,) = [item for item in ready.json["warnings"] if item.startswith("read-only: ")]
    assert FIRST_INDEX in warning
    assert "docs/store.md" in warning

    for method, path, body in (
        ("POST", "/v1/documents", {"document_id": "new", "text": "New."}),
        ("PATCH", "/v1/documents/for-hr", {"acl": ["legal"]}),
        ("DELETE", "/v1/documents/for-hr", None),
    ):
        answer = service.open(path, method=method, json=body)
        assert (answer.status_code, answer.json["type"]) == (503, "urn:braid:problem:read-only-index"), method
        assert FIRST_INDEX in answer.json["detail"]
        assert "docs/store.md" in answer.json["detail"]
    (tmp_path / "a.md").write_text("# A\n\nNew.\n")
    with pytest.raises(StoreReadOnly, match=FIRST_INDEX):
        ingest_and_report(
            store_settings, [tmp_path], IngestOptions(), as_json=True, console=Console(file=io.StringIO())
        )
    assert search(service) == ["for-all", "for-bob", "for-hr"]

    found = {item.check: item for item in examine(store_settings)}
    assert found["templates"].status == "ok"
    assert found["index"].status == "warning"
    assert FIRST_INDEX in found["index"].found
    assert "docs/store.md" in found["index"].remedy


def test_the_remedy_of_the_docs_makes_it_writable(
    service: FlaskClient, older: Cluster, rendered: RenderedResources
) -> None:
    done = reindex(older, rendered, None, print)
    assert (done.old, done.new, done.passages, done.heads) == (FIRST_INDEX, NEXT_INDEX, 3, 0)
    assert head_audit.build(older, NEXT_INDEX) == 0
    drifts, live = templates.compare(older, rendered)
    assert (drifts, templates.read_only(live, rendered)) == ([], None)
    assert search(service) == ["for-all", "for-bob", "for-hr"]
    assert not any(item.startswith("read-only") for item in service.get("/readyz").json["warnings"])
    answer = service.patch("/v1/documents/for-hr", json={"acl_1": ["board"]})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.json["acl_1"] == ["board"]
    assert service.delete("/v1/documents/for-bob").status_code == 204
    assert search(service) == ["for-all", "for-hr"]
