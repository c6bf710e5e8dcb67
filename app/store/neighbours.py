"""Neighbours of passages in their documents, as far as the caller can see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.errors import StoreError
from app.passage import Hit
from app.store.client import Cluster
from app.store.filters import Clause, Scope
from app.store.head_check import HeadCheck
from app.store.queries import Body, search_body
from app.store.responses import read_response

_FIELDS = ("document_id", "title", "section_heading", "text", "page", "position", "content_hash")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Place of a passage: version, document, and its ordinal among the version's passages, from 0."""

    document_id: str
    content_hash: str
    position: int

    @classmethod
    def of(cls, hit: Hit) -> Place:
        return cls(hit.document_id, hit.content_hash, hit.position)


def places_body(places: Iterable[Place], filters: Sequence[Clause], *, timeout_ms: int) -> Body:
    """Return a search body for the passages at `places` that pass `filters`; it names the version, so that a document
    that is being replaced does not contribute a passage of its other version.
    """
    positions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place in sorted(set(places)):
        positions[place.document_id, place.content_hash].append(place.position)
    wanted = [
        {
            "bool": {
                "filter": [
                    {"term": {"document_id": document_id}},
                    {"term": {"content_hash": content_hash}},
                    {"terms": {"position": numbers}},
                ]
            }
        }
        for (document_id, content_hash), numbers in positions.items()
    ]
    query = {"bool": {"filter": [*filters, {"bool": {"should": wanted, "minimum_should_match": 1}}]}}
    body = search_body(query, size=sum(map(len, positions.values())), timeout_ms=timeout_ms)
    return body | {"_source": list(_FIELDS), "track_total_hits": False}


def shown_at(
    cluster: Cluster,
    heads: HeadCheck,
    scope: Scope,
    places: Iterable[Place],
    filters: Sequence[Clause],
    *,
    timeout_s: float,
) -> dict[Place, Hit]:
    """Return those of `passages_at` whose version is live now and visible to `scope` by its head.

    Raises:
        StoreError: as `passages_at`, or heads can't be read.
    """
    found = passages_at(cluster, places, filters, timeout_s=timeout_s)
    versions = heads.in_force(scope, ((place.document_id, place.content_hash) for place in found), timeout_s)
    return {place: hit for place, hit in found.items() if (place.document_id, place.content_hash) in versions}


def passages_at(
    cluster: Cluster, places: Iterable[Place], filters: Sequence[Clause], *, timeout_s: float
) -> dict[Place, Hit]:
    """Return the passages at `places`; those that do not exist, or that `filters` (scope and request) hide, are
    missing.

    Sends one search, or none without places. Fields not needed of a neighbour (`uri`, tags) are empty.

    Raises:
        StoreError: OpenSearch failed, returned a partial answer, or none within `timeout_s` seconds.
    """
    wanted = set(places)
    if not wanted:
        return {}
    body = places_body(wanted, filters, timeout_ms=max(1, int(timeout_s * 1000)))
    raw = cluster.request("POST", f"/{cluster.read_alias}/_search", params=None, body=body, timeout_s=timeout_s)
    found = read_response(raw)
    if found.outcome.failed_shards or found.outcome.timed_out:
        raise StoreError("OpenSearch returned a partial answer: try again")
    return {Place.of(hit): hit for hit in found.hits if Place.of(hit) in wanted}
