"""Documents as sets of passages: which versions are complete, what is stored, what must go.

Ingestion writes the passage at position 0 last, so a version of a document is complete if, and only if, that passage is
there. What is read here is what searches see: writes up to the last refresh (each second, or `refresh`). The functions
that delete say what they need.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.errors import NotFound, StoreUnavailable
from app.store.client import Cluster
from app.store.filters import Clause, Scope, clauses

_PAGE = 1000
_STALE_PAGE = 250
"""Documents in one delete of stale versions: two clauses each, and OpenSearch takes 1,024 in a query."""
_DELETE_TIMEOUT_S = 300.0
_REFRESH_TIMEOUT_S = 60.0
_ATTEMPTS = 5


def complete_hashes(cluster: Cluster, tenant: str, document_ids: Sequence[str]) -> dict[str, set[str]]:
    """The content hashes of the complete versions of each document; documents without one are left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for start in range(0, len(document_ids), _PAGE):
        wanted = list(dict.fromkeys(document_ids[start : start + _PAGE]))
        filters = [*clauses(Scope(tenant)), {"terms": {"document_id": wanted}}, {"term": {"position": 0}}]
        for hit in _scan(cluster, filters, includes=["document_id", "content_hash"]):
            found[hit["_source"]["document_id"]].add(hit["_source"]["content_hash"])
    return dict(found)


def document_ids(cluster: Cluster, tenant: str, source_id: str) -> Iterator[str]:
    """The ids of all documents of a source, complete or not, each once, in order."""
    after: dict[str, str] | None = None
    filters = [*clauses(Scope(tenant)), {"term": {"source_id": source_id}}]
    while True:
        composite: dict[str, Any] = {"size": _PAGE, "sources": [{"id": {"terms": {"field": "document_id"}}}]}
        if after is not None:
            composite["after"] = after
        body = {
            "size": 0,
            "query": {"bool": {"filter": filters}},
            "aggs": {"documents": {"composite": composite}},
        }
        found = cluster.request("POST", f"/{cluster.read_alias}/_search", body=body)["aggregations"]["documents"]
        for bucket in found["buckets"]:
            yield bucket["key"]["id"]
        after = found.get("after_key")
        if after is None:
            return


def get_document(cluster: Cluster, scope: Scope, document_id: str) -> list[dict[str, Any]]:
    """The passages of the newest complete version, in their order, with their ids as `id`, without vectors.

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


def delete_documents(cluster: Cluster, tenant: str, document_ids: Sequence[str]) -> int:
    """Remove all passages of the documents, also those written a moment ago; how many there were.

    They can't be found any more on return.
    """
    refresh(cluster)
    deleted = 0
    for start in range(0, len(document_ids), _PAGE):
        wanted = list(document_ids[start : start + _PAGE])
        deleted += _delete(cluster, {"bool": {"filter": [*clauses(Scope(tenant)), {"terms": {"document_id": wanted}}]}})
    return deleted


def delete_stale(cluster: Cluster, tenant: str, keep: Mapping[str, str]) -> int:
    """Remove the passages of other versions than the hash to keep, for each document; how many there were.

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
        query = {"bool": {"filter": clauses(Scope(tenant)), "should": stale, "minimum_should_match": 1}}
        deleted += _delete(cluster, query)
    return deleted


def refresh(cluster: Cluster) -> None:
    """Make all writes visible to searches."""
    cluster.request("POST", f"/{_both(cluster)}/_refresh", timeout_s=_REFRESH_TIMEOUT_S)


def count(cluster: Cluster, tenant: str) -> int:
    """How many passages the tenant has."""
    body = {"query": {"bool": {"filter": clauses(Scope(tenant))}}}
    return int(cluster.request("POST", f"/{cluster.read_alias}/_count", body=body)["count"])


def _both(cluster: Cluster) -> str:
    """What is read and what is written: two indexes while aliases are being moved."""
    return ",".join(dict.fromkeys((cluster.read_alias, cluster.write_alias)))


def _newest_version(cluster: Cluster, filters: list[Clause]) -> str | None:
    body = {
        "size": 1,
        "query": {"bool": {"filter": [*filters, {"term": {"position": 0}}]}},
        "sort": [{"ingested_at": "desc"}, {"content_hash": "asc"}],
        "_source": ["content_hash"],
        "track_total_hits": False,
    }
    hits = cluster.request("POST", f"/{cluster.read_alias}/_search", body=body)["hits"]["hits"]
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
    cluster: Cluster, filters: list[Clause], *, includes: Sequence[str] = (), excludes: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """All hits of a filter, by document, version and position, page after page."""
    after: list[Any] | None = None
    while True:
        body: dict[str, Any] = {
            "size": _PAGE,
            "query": {"bool": {"filter": filters}},
            "sort": [{"document_id": "asc"}, {"content_hash": "asc"}, {"position": "asc"}],
            "_source": {"includes": list(includes), "excludes": list(excludes)},
            "track_total_hits": False,
        }
        if after is not None:
            body["search_after"] = after
        hits = cluster.request("POST", f"/{cluster.read_alias}/_search", body=body)["hits"]["hits"]
        yield from hits
        if len(hits) < _PAGE:
            return
        after = hits[-1]["sort"]
