"""Documents as sets of passages: which versions are complete, what is stored, what must go.

Ingestion writes the passage at position 0 last, so a version of a document is complete if, and only if, that passage is
there. Searches see writes after a refresh: every function that decides something refreshes first or is told to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.errors import NotFound
from app.store.client import Cluster
from app.store.filters import Clause, Scope, clauses
from app.store.rendering import READ_ALIAS, WRITE_ALIAS

_PAGE = 1000
_MAX_PASSAGES = 10_000
_DELETE_TIMEOUT_S = 300.0


def complete_hashes(cluster: Cluster, tenant: str, document_ids: Sequence[str]) -> dict[str, set[str]]:
    """The content hashes of the complete versions of each document; documents without one are left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for start in range(0, len(document_ids), _PAGE):
        wanted = list(dict.fromkeys(document_ids[start : start + _PAGE]))
        filters = [*clauses(Scope(tenant)), {"terms": {"document_id": wanted}}, {"term": {"position": 0}}]
        for hit in _scan(cluster, filters, ["document_id", "content_hash"]):
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
        found = cluster.request("POST", f"/{READ_ALIAS}/_search", body=body)["aggregations"]["documents"]
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
    hits = list(_scan(cluster, filters, None, excludes=["embedding"], limit=_MAX_PASSAGES))
    heads = [hit["_source"] for hit in hits if hit["_source"]["position"] == 0]
    if not heads:
        raise NotFound(f"there is no document {document_id!r}")
    newest = max(heads, key=lambda head: str(head.get("ingested_at", "")))["content_hash"]
    passages = [{"id": hit["_id"], **hit["_source"]} for hit in hits if hit["_source"]["content_hash"] == newest]
    return sorted(passages, key=lambda passage: int(passage["position"]))


def delete_documents(cluster: Cluster, tenant: str, document_ids: Sequence[str]) -> int:
    """Remove all passages of the documents; how many there were. They can't be found any more on return."""
    deleted = 0
    for start in range(0, len(document_ids), _PAGE):
        wanted = list(document_ids[start : start + _PAGE])
        deleted += _delete(cluster, [*clauses(Scope(tenant)), {"terms": {"document_id": wanted}}], [])
    return deleted


def delete_stale(cluster: Cluster, tenant: str, keep: Mapping[str, str]) -> int:
    """Remove the passages of other versions than the hash to keep, for each document; how many there were."""
    deleted = 0
    items = list(keep.items())
    for start in range(0, len(items), _PAGE):
        part = items[start : start + _PAGE]
        filters = [*clauses(Scope(tenant)), {"terms": {"document_id": [document for document, _ in part]}}]
        # a hash names one version of one document: the tenant and the content are part of it
        deleted += _delete(cluster, filters, [{"terms": {"content_hash": [kept for _, kept in part]}}])
    return deleted


def refresh(cluster: Cluster) -> None:
    """Make all writes visible to searches."""
    cluster.request("POST", f"/{WRITE_ALIAS}/_refresh")


def count(cluster: Cluster, tenant: str) -> int:
    """How many passages the tenant has."""
    body = {"query": {"bool": {"filter": clauses(Scope(tenant))}}}
    return int(cluster.request("POST", f"/{READ_ALIAS}/_count", body=body)["count"])


def _delete(cluster: Cluster, filters: list[Clause], must_not: list[Clause]) -> int:
    query: dict[str, Any] = {"bool": {"filter": filters}}
    if must_not:
        query["bool"]["must_not"] = must_not
    answer = cluster.request(
        "POST",
        f"/{WRITE_ALIAS}/_delete_by_query",
        # a passage that somebody else replaces meanwhile is theirs
        params={"refresh": "true", "conflicts": "proceed"},
        body={"query": query},
        timeout_s=_DELETE_TIMEOUT_S,
    )
    return int(answer["deleted"])


def _scan(
    cluster: Cluster,
    filters: list[Clause],
    includes: list[str] | None,
    *,
    excludes: Sequence[str] = (),
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """All hits of a filter, by document and position, page after page."""
    after: list[Any] | None = None
    given = 0
    while True:
        body: dict[str, Any] = {
            "size": _PAGE,
            "query": {"bool": {"filter": filters}},
            "sort": [{"document_id": "asc"}, {"content_hash": "asc"}, {"position": "asc"}],
            "_source": {"includes": includes} if includes is not None else {"excludes": list(excludes)},
            "track_total_hits": False,
        }
        if after is not None:
            body["search_after"] = after
        hits = cluster.request("POST", f"/{READ_ALIAS}/_search", body=body)["hits"]["hits"]
        for hit in hits:
            yield hit
            given += 1
            if limit is not None and given >= limit:
                return
        if len(hits) < _PAGE:
            return
        after = hits[-1]["sort"]
