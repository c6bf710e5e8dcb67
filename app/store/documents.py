"""Documents as sets of passages: which versions are complete, what is stored, what must go.

Ingestion writes the passage at position 0 last, so a version of a document is complete if, and only if, that passage is
there. What is read here is what searches see: writes up to the last refresh (each second, or `refresh`). The functions
that delete say what they need.

Everything takes the caller's scope and goes through its clauses: who may not read a version can't replace or remove it,
and learns nothing of it. The content hash covers the readers, so a scope sees a version whole or not at all; of the
versions of one id it may see some: two writers who can't see each other's documents may both use the id.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.access import ACCESS_FIELDS, Access
from app.errors import NotFound, StoreUnavailable
from app.passage import Passage, SourceType
from app.store.client import Cluster
from app.store.filters import Clause, Scope, clauses
from app.store.queries import TOKEN_VECTORS

Versions = dict[str, Access]
"""Content hash -> who may read that version, the newest last."""

_PAGE = 1000
_VECTORS_PAGE = 200
"""Passages with vectors in one answer: some 20 kB each."""
_STALE_PAGE = 250
"""Documents in one delete of stale versions: two clauses each, and OpenSearch takes 1,024 in a query."""
_DELETE_TIMEOUT_S = 300.0
_REFRESH_TIMEOUT_S = 60.0
_ATTEMPTS = 5


def complete_versions(cluster: Cluster, scope: Scope, document_ids: Sequence[str]) -> dict[str, Versions]:
    """The complete versions of each document that the scope may see; documents without one are left out."""
    found: dict[str, list[tuple[datetime, str, Access]]] = {}
    for start in range(0, len(document_ids), _PAGE):
        wanted = list(dict.fromkeys(document_ids[start : start + _PAGE]))
        filters = [*clauses(scope), {"terms": {"document_id": wanted}}, {"term": {"position": 0}}]
        for hit in _scan(cluster, filters, includes=["document_id", "content_hash", "ingested_at", *ACCESS_FIELDS]):
            source = hit["_source"]
            written = _time(source.get("ingested_at", 0))
            version = (written, source["content_hash"], Access.of(source))
            found.setdefault(source["document_id"], []).append(version)
    return {
        key: {content: access for _, content, access in sorted(versions, key=lambda version: version[:2])}
        for key, versions in found.items()
    }


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


def get_document(cluster: Cluster, scope: Scope, document_id: str) -> list[dict[str, Any]]:
    """The passages of the newest complete version that the scope may see, in their order, with their ids as `id`.

    Without vectors. Where the scope sees two documents of one id, it is the one that was written last.

    Raises:
        NotFound: there is none, or none that the scope may see; callers can't tell which.
    """
    filters: list[Clause] = [*clauses(scope), {"term": {"document_id": document_id}}]
    for _ in range(_ATTEMPTS):
        newest = _newest_version(cluster, filters)
        if newest is None:
            raise NotFound(f"there is no document {document_id!r}")
        hits = _scan(cluster, [*filters, {"term": {"content_hash": newest}}], excludes=["embedding"])
        passages = [{"id": hit["_id"], **hit["_source"]} for hit in hits]
        if passages and passages[0]["position"] == 0:
            return passages
        # replaced between the two requests: look for the version that took its place
    raise StoreUnavailable(f"document {document_id!r} is being replaced over and over; ask again")


def newest_version(cluster: Cluster, scope: Scope, document_id: str) -> tuple[str, Access] | None:
    """The hash and the readers of what `get_document` shows; None where there is nothing."""
    versions = complete_versions(cluster, scope, [document_id]).get(document_id)
    return next(reversed(versions.items())) if versions else None


def read_version(cluster: Cluster, scope: Scope, document_id: str, content_hash: str) -> Iterator[Passage]:
    """The passages of one version as they were written, vectors and all, in their order."""
    filters = [*clauses(scope), {"term": {"document_id": document_id}}, {"term": {"content_hash": content_hash}}]
    for hit in _scan(cluster, filters, docvalues=[TOKEN_VECTORS], page=_VECTORS_PAGE):
        yield _passage(hit)


def count_version(cluster: Cluster, scope: Scope, document_id: str, content_hash: str) -> int:
    """How many passages a version has that the scope may see."""
    filters = [*clauses(scope), {"term": {"document_id": document_id}}, {"term": {"content_hash": content_hash}}]
    return _count(cluster, filters)


def delete_documents(cluster: Cluster, scope: Scope, document_ids: Sequence[str]) -> int:
    """Remove all passages of the documents that the scope may see, also those written a moment ago.

    They can't be found any more on return, which is how many there were.
    """
    refresh(cluster)
    deleted = 0
    for start in range(0, len(document_ids), _PAGE):
        wanted = list(document_ids[start : start + _PAGE])
        deleted += _delete(cluster, {"bool": {"filter": [*clauses(scope), {"terms": {"document_id": wanted}}]}})
    return deleted


def delete_incomplete(cluster: Cluster, tenant: str, document_id: str, content_hash: str) -> int:
    """Remove what there is of a version whose writer gave up; how many passages.

    Nothing where the version is complete: then somebody else wrote the same, readers and all. It takes no scope, since
    a writer need not be able to read what it writes; the hash names what it wrote itself.
    """
    refresh(cluster)
    version = [
        *clauses(Scope(tenant)),
        {"term": {"document_id": document_id}},
        {"term": {"content_hash": content_hash}},
    ]
    if _count(cluster, [*version, {"term": {"position": 0}}]):
        return 0
    return _delete(cluster, {"bool": {"filter": version}})


def delete_stale(cluster: Cluster, scope: Scope, keep: Mapping[str, str]) -> int:
    """Remove the passages of other versions than the hash to keep that the scope may see; how many there were.

    The version to keep must be complete, and `refresh` called since it was written if the document had another: else
    one shard may show the deletion before another shows the new version. Nothing is refreshed if nothing is stale,
    so that this costs a first ingest next to nothing.
    """
    deleted = 0
    items = list(keep.items())
    for start in range(0, len(items), _STALE_PAGE):
        # in pairs: when two documents swap contents, the hash that one keeps is the other's stale one
        stale = [
            {
                "bool": {
                    "filter": [{"term": {"document_id": document_id}}],
                    "must_not": [{"term": {"content_hash": kept}}],
                }
            }
            for document_id, kept in items[start : start + _STALE_PAGE]
        ]
        query = {"bool": {"filter": clauses(scope), "should": stale, "minimum_should_match": 1}}
        deleted += _delete(cluster, query)
    return deleted


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


def _newest_version(cluster: Cluster, filters: list[Clause]) -> str | None:
    body = {
        "size": 1,
        "query": {"bool": {"filter": [*filters, {"term": {"position": 0}}]}},
        "sort": [{"ingested_at": "desc"}, {"content_hash": "desc"}],
        "_source": ["content_hash"],
        "track_total_hits": False,
    }
    hits = cluster.whole(f"/{cluster.read_alias}/_search", body)["hits"]["hits"]
    return str(hits[0]["_source"]["content_hash"]) if hits else None


def _delete(cluster: Cluster, query: dict[str, Any]) -> int:
    """Delete what matches. A passage that is rewritten meanwhile (the same content again) is tried anew."""
    deleted = 0
    for attempt in range(_ATTEMPTS):
        answer = cluster.request(
            "POST",
            f"/{_both(cluster)}/_delete_by_query",
            params={"refresh": "true", "conflicts": "proceed"},
            body={"query": query},
            timeout_s=_DELETE_TIMEOUT_S,
        )
        deleted += int(answer["deleted"])
        if not answer["version_conflicts"] and not answer["failures"]:
            return deleted
        time.sleep(0.05 * 2**attempt)
        refresh(cluster)
    raise StoreUnavailable("passages that are to be deleted are being rewritten by somebody else; run the same again")


def _scan(
    cluster: Cluster,
    filters: list[Clause],
    *,
    includes: Sequence[str] = (),
    excludes: Sequence[str] = (),
    docvalues: Sequence[str] = (),
    page: int = _PAGE,
) -> Iterator[dict[str, Any]]:
    """All hits of a filter, by document, version and position, page after page."""
    after: list[Any] | None = None
    while True:
        body: dict[str, Any] = {
            "size": page,
            "query": {"bool": {"filter": filters}},
            "sort": [{"document_id": "asc"}, {"content_hash": "asc"}, {"position": "asc"}],
            "_source": {"includes": list(includes), "excludes": list(excludes)},
            "track_total_hits": False,
        }
        if docvalues:
            body["docvalue_fields"] = list(docvalues)
        if after is not None:
            body["search_after"] = after
        hits = cluster.whole(f"/{cluster.read_alias}/_search", body)["hits"]["hits"]
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
