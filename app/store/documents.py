"""Documents as sets of passages: the stored passages of a version, and the documents that a caller can see.

The document's head (`store.heads`) determines the live version and is read in real time; passages are read as searches
see them: writes up to the last refresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.access import ACCESS_FIELDS, Access
from app.errors import NotFound, StoreUnavailable
from app.passage import Passage
from app.store.client import Cluster
from app.store.filters import Clause, Scope, clauses
from app.store.heads import Head, Version, read_heads
from app.store.paging import distinct
from app.store.passages import TOKEN_VECTORS, read_passage

_PAGE = 1000
_VECTORS_PAGE = 200
"""Passages with vectors per response: some 20 kB each."""
_REFRESH_TIMEOUT_S = 60.0
_ATTEMPTS = 5


def document_ids(cluster: Cluster, scope: Scope, source_id: str) -> Iterator[str]:
    """Yield the ids of all documents of a source that the scope can see, complete or not, each once, in order."""
    query = {"bool": {"filter": [*clauses(scope), {"term": {"source_id": source_id}}]}}

    def search(aggregations: dict[str, Any]) -> Any:
        body = {"size": 0, "query": query, "aggs": aggregations}
        return cluster.request_all_shards(f"/{cluster.read_alias}/_search", body)["aggregations"]

    for page in distinct(search, ["document_id"], _PAGE):
        yield from (bucket["key"]["document_id"] for bucket in page)


def live_heads(cluster: Cluster, scope: Scope, document_id: str) -> list[Head]:
    """Return the heads of the documents of that id visible to the scope, the one that is shown first. Raises
    StoreError.
    """
    own = read_heads(cluster, [Head(scope.tenant, document_id)]).popitem()[1]
    twins = read_heads(cluster, [Head(scope.tenant, document_id, twin) for twin in own.twins]).values()
    return [head for head in (own, *twins) if head.version is not None and head.readable(scope.principals)]


def get_document(cluster: Cluster, scope: Scope, document_id: str) -> tuple[Head, list[dict[str, Any]]]:
    """Return the head of a document and the passages of its live version, in order, with their ids as `id`.

    The passages have no vectors. The result is never partial: if the document is being replaced, it is read again.

    Raises:
        NotFound: the scope sees no such document.
        StoreUnavailable: the document keeps being replaced, or passages are missing.
    """
    versions = set()
    for _ in range(_ATTEMPTS):
        heads = live_heads(cluster, scope, document_id)
        if not heads:
            raise NotFound(f"there is no document {document_id!r}")
        head = heads[0]
        hits = list(_scan(cluster, head, excludes=["embedding"]))
        if head.version is not None and len(hits) == head.version.passages:
            return head, [{"id": hit["_id"], **hit["_source"]} for hit in hits]
        versions.add(head.version)
        refresh(cluster)  # replaced between the two requests, or written a moment ago
    if len(versions) == 1:
        raise StoreUnavailable(f"passages of document {document_id!r} are missing: run `braid heads audit`")
    raise StoreUnavailable(f"document {document_id!r} keeps being replaced: try again")


def get_headless_document(cluster: Cluster, scope: Scope, document_id: str) -> tuple[Head, list[dict[str, Any]]]:
    """Return a document like `get_document` from an index of an older Braid, which has no heads and is not written."""
    filters = [*clauses(scope), {"term": {"document_id": document_id}}]
    body = {
        "size": 1,
        "query": {"bool": {"filter": [*filters, {"term": {"position": 0}}]}},
        "sort": [{"ingested_at": "desc"}, {"content_hash": "desc"}],
        "_source": ["content_hash", *ACCESS_FIELDS],
        "track_total_hits": False,
    }
    hits = cluster.request_all_shards(f"/{cluster.read_alias}/_search", body)["hits"]["hits"]
    if not hits:
        raise NotFound(f"there is no document {document_id!r}")
    token = str(hits[0]["_source"]["content_hash"])
    version = Version(token, _count(cluster, [*filters, {"term": {"content_hash": token}}]), hits[0]["_index"])
    head = Head(scope.tenant, document_id, version=version, access=Access.of(hits[0]["_source"]))
    return head, [{"id": hit["_id"], **hit["_source"]} for hit in _scan(cluster, head, excludes=["embedding"])]


def read_version(cluster: Cluster, head: Head) -> Iterator[Passage]:
    """Yield the complete passages of the live version as they were written, with vectors, in order."""
    for hit in _scan(cluster, head, docvalues=[TOKEN_VECTORS], page=_VECTORS_PAGE):
        yield read_passage(hit)


def refresh(cluster: Cluster) -> None:
    """Make all writes visible to searches."""
    cluster.request("POST", f"/{_both(cluster)}/_refresh", timeout_s=_REFRESH_TIMEOUT_S)


def count(cluster: Cluster, tenant: str) -> int:
    """Return the number of passages of the tenant."""
    return _count(cluster, clauses(Scope(tenant)))


def _count(cluster: Cluster, filters: list[Clause]) -> int:
    body = {"query": {"bool": {"filter": filters}}}
    return int(cluster.request_all_shards(f"/{cluster.read_alias}/_count", body)["count"])


def _both(cluster: Cluster) -> str:
    """Return the read and the write alias: they name two indexes while aliases are being moved."""
    return ",".join(dict.fromkeys((cluster.read_alias, cluster.write_alias)))


def _scan(
    cluster: Cluster,
    head: Head,
    *,
    excludes: Sequence[str] = (),
    docvalues: Sequence[str] = (),
    page: int = _PAGE,
) -> Iterator[dict[str, Any]]:
    """Yield all passages of the live version by position, page after page."""
    if head.version is None:
        return
    filters = [
        *clauses(Scope(head.tenant)),
        {"term": {"document_id": head.document_id}},
        {"term": {"content_hash": head.version.token}},
    ]
    after: list[Any] | None = None
    while True:
        body: dict[str, Any] = {
            "size": page,
            "query": {"bool": {"filter": filters}},
            "sort": [{"position": "asc"}],
            "_source": {"excludes": list(excludes)},
            "track_total_hits": False,
        }
        if docvalues:
            body["docvalue_fields"] = list(docvalues)
        if after is not None:
            body["search_after"] = after
        hits = cluster.request_all_shards(f"/{head.version.index}/_search", body)["hits"]["hits"]
        yield from hits
        if len(hits) < page:
            return
        after = hits[-1]["sort"]
