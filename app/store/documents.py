"""Documents as sets of passages: what is stored of a version, and what a caller may see of a document.

Which version is in force is said by the document's head (`store.heads`), read in real time; passages are read as
searches see them: writes up to the last refresh.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.access import ACCESS_FIELDS, Access
from app.errors import NotFound, StoreUnavailable
from app.passage import Passage, SourceType
from app.store.client import Cluster
from app.store.filters import Clause, Scope, clauses
from app.store.heads import Head, Version, read_heads
from app.store.queries import TOKEN_VECTORS

_PAGE = 1000
_VECTORS_PAGE = 200
"""Passages with vectors in one answer: some 20 kB each."""
_REFRESH_TIMEOUT_S = 60.0
_ATTEMPTS = 5


def document_ids(cluster: Cluster, scope: Scope, source_id: str) -> Iterator[str]:
    """The ids of all documents of a source that the scope may see, complete or not, each once, in order."""
    after: dict[str, str] | None = None
    filters = [*clauses(scope), {"term": {"source_id": source_id}}]
    while True:
        composite: dict[str, Any] = {"size": _PAGE, "sources": [{"id": {"terms": {"field": "document_id"}}}]}
        if after is not None:
            composite["after"] = after
        body = {
            "size": 0,
            "query": {"bool": {"filter": filters}},
            "aggs": {"documents": {"composite": composite}},
        }
        found = cluster.whole(f"/{cluster.read_alias}/_search", body)["aggregations"]["documents"]
        for bucket in found["buckets"]:
            yield bucket["key"]["id"]
        after = found.get("after_key")
        if after is None:
            return


def live_heads(cluster: Cluster, scope: Scope, document_id: str) -> list[Head]:
    """The heads of the documents of that id that the scope may see, the one that is shown first. Raises StoreError."""
    own = read_heads(cluster, [Head(scope.tenant, document_id)]).popitem()[1]
    twins = read_heads(cluster, [Head(scope.tenant, document_id, twin) for twin in own.twins]).values()
    return [head for head in (own, *twins) if head.version is not None and head.readable(scope.principals)]


def get_document(cluster: Cluster, scope: Scope, document_id: str) -> tuple[Head, list[dict[str, Any]]]:
    """The head of a document, and the passages of the version in force, in their order, with their ids as `id`.

    Without vectors. Never a part of them: while the document is being replaced, it is looked up anew.

    Raises:
        NotFound: there is none, or none that the scope may see; callers can't tell which.
        StoreUnavailable: it is replaced over and over, or passages are missing.
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
        raise StoreUnavailable(f"passages of document {document_id!r} are missing; run `braid heads audit`")
    raise StoreUnavailable(f"document {document_id!r} is being replaced over and over; ask again")


def get_headless_document(cluster: Cluster, scope: Scope, document_id: str) -> tuple[Head, list[dict[str, Any]]]:
    """As `get_document`, of an index of an older Braid, which has no heads and is not written any more."""
    filters = [*clauses(scope), {"term": {"document_id": document_id}}]
    body = {
        "size": 1,
        "query": {"bool": {"filter": [*filters, {"term": {"position": 0}}]}},
        "sort": [{"ingested_at": "desc"}, {"content_hash": "desc"}],
        "_source": ["content_hash", *ACCESS_FIELDS],
        "track_total_hits": False,
    }
    hits = cluster.whole(f"/{cluster.read_alias}/_search", body)["hits"]["hits"]
    if not hits:
        raise NotFound(f"there is no document {document_id!r}")
    token = str(hits[0]["_source"]["content_hash"])
    version = Version(token, _count(cluster, [*filters, {"term": {"content_hash": token}}]), hits[0]["_index"])
    head = Head(scope.tenant, document_id, version=version, access=Access.of(hits[0]["_source"]))
    return head, [{"id": hit["_id"], **hit["_source"]} for hit in _scan(cluster, head, excludes=["embedding"])]


def read_version(cluster: Cluster, head: Head) -> Iterator[Passage]:
    """The passages of the version in force as they were written, vectors and all, in their order."""
    for hit in _scan(cluster, head, docvalues=[TOKEN_VECTORS], page=_VECTORS_PAGE):
        yield _passage(hit)


def refresh(cluster: Cluster) -> None:
    """Make all writes visible to searches."""
    cluster.request("POST", f"/{_both(cluster)}/_refresh", timeout_s=_REFRESH_TIMEOUT_S)


def count(cluster: Cluster, tenant: str) -> int:
    """How many passages the tenant has."""
    return _count(cluster, clauses(Scope(tenant)))


def _count(cluster: Cluster, filters: list[Clause]) -> int:
    body = {"query": {"bool": {"filter": filters}}}
    return int(cluster.whole(f"/{cluster.read_alias}/_count", body)["count"])


def _both(cluster: Cluster) -> str:
    """What is read and what is written: two indexes while aliases are being moved."""
    return ",".join(dict.fromkeys((cluster.read_alias, cluster.write_alias)))


def _scan(
    cluster: Cluster,
    head: Head,
    *,
    excludes: Sequence[str] = (),
    docvalues: Sequence[str] = (),
    page: int = _PAGE,
) -> Iterator[dict[str, Any]]:
    """All passages of the version in force, by position, page after page."""
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
        hits = cluster.whole(f"/{head.version.index}/_search", body)["hits"]["hits"]
        yield from hits
        if len(hits) < page:
            return
        after = hits[-1]["sort"]


def _passage(hit: Mapping[str, Any]) -> Passage:
    source = hit["_source"]
    access = Access.of(source)
    packed = next(iter(hit.get("fields", {}).get(TOKEN_VECTORS, ())), None)
    embedding = source.get("embedding")
    return Passage(
        id=hit["_id"],
        document_id=source["document_id"],
        source_id=source.get("source_id", ""),
        source_type=SourceType(source["source_type"]),
        uri=source.get("uri", ""),
        title=source.get("title", ""),
        section_heading=source.get("section_heading", ""),
        text=source["text"],
        page=source.get("page"),
        position=int(source["position"]),
        token_count=int(source["token_count"]),
        timestamp=_time(source["timestamp"]),
        topic_tags=tuple(_list(source.get("topic_tags"))),
        tenant=source["tenant"],
        acl=access.acl,
        content_hash=source["content_hash"],
        embedding_model=source["embedding_model"],
        acl_1=access.acl_1,
        acl_2=access.acl_2,
        acl_3=access.acl_3,
        acl_4=access.acl_4,
        pages=tuple(_list(source.get("pages"))),
        language=source.get("language"),
        embedding=tuple(embedding) if embedding is not None else None,
        # doc values come without padding
        token_vectors=base64.b64decode(packed + "=" * (-len(packed) % 4)) if packed is not None else None,
    )


def _time(value: str | int) -> datetime:
    """As `bulk` writes it; milliseconds, as OpenSearch also takes it."""
    found = datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int) else datetime.fromisoformat(value)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _list(value: Any) -> list[Any]:
    """A field that may hold one value or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
