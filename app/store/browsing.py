"""Documents and passages by their place, without a query: what a caller can list, and open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.deadline import Deadline
from app.passage import Hit
from app.store.client import Cluster
from app.store.filters import Clause, PassageFilter, Scope, clauses
from app.store.head_check import HeadCheck
from app.store.passages import READ_FIELDS, read_hit
from app.store.queries import search_body
from app.store.responses import read_response

_LEAST_PAGE = 50
"""Documents that are read at once, at least: some of them may not be shown."""
_ATTEMPTS = 3
_LISTED_FIELDS = [name for name in READ_FIELDS if name not in {"text", "section_heading"}]
_LAST = "\U0010ffff"
"""Sorts after every version of a document."""


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document in a list: its first passage that matches, without text, and the number of those that match.

    `last_page` is the highest page that one of them begins on; None without pages.
    """

    first: Hit
    passages: int
    last_page: int | None


def list_documents(
    cluster: Cluster,
    heads: HeadCheck | None,
    scope: Scope,
    wanted: PassageFilter,
    *,
    after: str,
    size: int,
    deadline: Deadline,
) -> tuple[list[ListedDocument], bool]:
    """Return up to `size` documents with passages that match, by id, and whether there are more.

    Args:
        heads: check of what is in force; None: an index of an older Braid, which has no heads.
        after: only documents with greater ids; empty: from the first.

    Raises:
        StoreError: OpenSearch failed, or heads can't be read.
        DeadlineExceeded.
    """
    query = {"bool": {"filter": clauses(scope, wanted)}}
    count = max(size + 1, _LEAST_PAGE)
    found: dict[str, ListedDocument] = {}
    place = {"document_id": after, "content_hash": _LAST} if after else None
    while len(found) <= size:
        left = deadline.remaining_s("documents")
        body = {
            "size": 0,
            "query": query,
            "track_total_hits": False,
            "timeout": f"{max(1, int(left * 1000))}ms",
            "aggs": {"versions": _versions(count, place)},
        }
        page = cluster.request_all_shards(f"/{cluster.read_alias}/_search", body, timeout_s=left)
        versions = page["aggregations"]["versions"]
        listed = [_listed(bucket) for bucket in versions["buckets"]]
        for item in _shown(listed, heads, scope, deadline):
            found.setdefault(item.first.document_id, item)
        place = versions.get("after_key")
        if place is None or len(listed) < count:
            break
    documents = list(found.values())
    return documents[:size], len(documents) > size


def find_passages(
    cluster: Cluster,
    heads: HeadCheck | None,
    scope: Scope,
    wanted: PassageFilter,
    further: Sequence[Clause] = (),
    *,
    size: int,
    deadline: Deadline,
) -> list[Hit]:
    """Return the first `size` passages of a document, by position, that pass scope and filter and are in force.

    What is hidden takes the same requests as what does not exist.

    Args:
        heads: as in `list_documents`.
        further: clauses that narrow to one document or passage.

    Raises:
        StoreError, DeadlineExceeded: as `list_documents`.
    """
    narrowed = list(further)
    for _ in range(_ATTEMPTS):
        left = deadline.remaining_s("passages")
        query = {"bool": {"filter": [*clauses(scope, wanted), *narrowed]}}
        body = search_body(query, size=size, timeout_ms=max(1, int(left * 1000)))
        body |= {"sort": [{"position": "asc"}, {"content_hash": "asc"}], "track_total_hits": False}
        raw = cluster.request_all_shards(f"/{cluster.read_alias}/_search", body, timeout_s=left)
        hits = read_response(raw).hits
        if heads is None or not hits:
            return list(hits)
        asked = {(hit.document_id, hit.content_hash) for hit in hits}
        live = heads.in_force(scope, asked, deadline.remaining_s("heads"))
        if live == asked:
            return list(hits)
        if live:  # passages of another version took places: read the one in force alone
            narrowed = [*further, {"terms": {"content_hash": sorted(token for _, token in live)}}]
    return []


def _versions(count: int, place: dict[str, Any] | None) -> dict[str, Any]:
    """Return an aggregation of documents and their versions, by id."""
    sources = [{name: {"terms": {"field": name}}} for name in ("document_id", "content_hash")]
    composite: dict[str, Any] = {"size": count, "sources": sources}
    if place is not None:
        composite["after"] = place
    first = {"top_hits": {"size": 1, "sort": [{"position": "asc"}], "_source": _LISTED_FIELDS}}
    return {"composite": composite, "aggs": {"first": first, "last_page": {"max": {"field": "page"}}}}


def _listed(bucket: dict[str, Any]) -> ListedDocument:
    last = bucket["last_page"]["value"]
    first = read_hit(bucket["first"]["hits"]["hits"][0], 0.0)
    return ListedDocument(first, int(bucket["doc_count"]), int(last) if last is not None else None)


def _shown(
    listed: Sequence[ListedDocument], heads: HeadCheck | None, scope: Scope, deadline: Deadline
) -> list[ListedDocument]:
    if heads is None or not listed:
        return list(listed)
    names = [(item.first.document_id, item.first.content_hash) for item in listed]
    live = heads.in_force(scope, names, deadline.remaining_s("heads"))
    return [item for item, name in zip(listed, names, strict=True) if name in live]
