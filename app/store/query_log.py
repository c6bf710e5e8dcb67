"""The query log in OpenSearch: every request that writes, reads or removes it.

There is one index per month for all tenants of a cluster, with two kinds of documents: ``query`` (its `_id` is the id
of the query) and ``feedback``, which is in the index of its query. The month follows from the query's id, so that a
look-up is one real-time GET, which finds the latest write without a refresh.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Literal

import orjson

from app.errors import StoreError
from app.store.client import Cluster, find
from app.store.paging import distinct

ALL_MONTHS = "braid-queries-*"

_MONTH = re.compile(r"braid-queries-(\d{4})\.(\d{2})")
_WRITE_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0
_HASHES = 200
"""Queries per page of an export."""
_PAGE = 1000
_CONFLICT = 409

Label = Literal["relevant", "irrelevant"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A query for the log: its id, its time (which determines the month), and its fields."""

    id: str
    made_at: datetime
    source: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """Outcome of a batch; `reason` explains the failed entries, without their text."""

    written: int
    failed: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """Number of times that one result of equal queries was given one label."""

    document_id: str
    result_id: str
    label: Label
    count: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of the calls of one route; None without calls."""

    route: str
    queries: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Counts over the log of one tenant; `of_results` counts feedback on single results."""

    queries: int
    without_results: int
    degraded: int
    abstained: int
    feedback: int
    of_results: int
    relevant: int
    latency: tuple[Latency, ...]


def month_index(when: datetime) -> str:
    """Return the index of a month, in UTC."""
    return f"braid-queries-{when.astimezone(UTC):%Y.%m}"


def write_entries(cluster: Cluster, entries: Sequence[Entry], timeout_s: float = _WRITE_TIMEOUT_S) -> WriteOutcome:
    """Write a batch in one request. An existing entry counts as written.

    Raises:
        StoreError: the whole request failed.
    """
    lines: list[bytes] = []
    for entry in entries:
        try:
            source = orjson.dumps(entry.source)
        except orjson.JSONEncodeError:  # an unpaired surrogate in a query
            continue
        lines += [orjson.dumps({"create": {"_index": month_index(entry.made_at), "_id": entry.id}}), source]
    unreadable = len(entries) - len(lines) // 2
    if not lines:
        return WriteOutcome(0, unreadable, "not_unicode")
    answer = cluster.request("POST", "/_bulk", body=b"\n".join(lines) + b"\n", timeout_s=timeout_s)
    refused = [
        str(item["create"].get("error", {}).get("type"))
        for item in answer["items"]
        if int(item["create"]["status"]) >= 300 and int(item["create"]["status"]) != _CONFLICT
    ]
    reasons = ["not_unicode"] * unreadable + refused
    return WriteOutcome(len(entries) - len(reasons), len(reasons), ", ".join(sorted(set(reasons))))


def get_query(cluster: Cluster, made_at: datetime, query_id: str) -> dict[str, Any] | None:
    """Return the entry of a query as it was written, or None. Raises StoreError."""
    found = find(cluster, f"/{month_index(made_at)}/_doc/{query_id}")
    source: dict[str, Any] = found["_source"] if found is not None else {}
    return source if source.get("kind") == "query" else None


def put_feedback(cluster: Cluster, made_at: datetime, feedback_id: str, source: dict[str, Any]) -> None:
    """Write feedback beside its query, replacing an earlier one with the same id. Raises StoreError."""
    path = f"/{month_index(made_at)}/_doc/{feedback_id}"
    cluster.request("PUT", path, body=source, timeout_s=_WRITE_TIMEOUT_S)


def refresh(cluster: Cluster) -> None:
    """Make all writes visible to readers of the log."""
    cluster.request("POST", f"/{ALL_MONTHS}/_refresh", timeout_s=_READ_TIMEOUT_S)


def expired(cluster: Cluster, days: int, today: date) -> list[str]:
    """Return the months whose last day is at least `days` days before `today`, oldest first."""
    found = cluster.request("GET", f"/{ALL_MONTHS}/_settings", params={"filter_path": "*.settings.index.creation_date"})
    limit = today - timedelta(days=days)
    names = []
    for name in sorted(found):
        month = _MONTH.fullmatch(name)
        if month is None or not 1 <= int(month[2]) <= 12:
            continue  # not named like ours, for example a restored copy
        next_month = (date(int(month[1]), int(month[2]), 1) + timedelta(days=32)).replace(day=1)
        if next_month <= limit:
            names.append(name)
    return names


def remove(cluster: Cluster, index: str) -> None:
    """Delete one month, of all tenants. Raises StoreError."""
    cluster.request("DELETE", f"/{index}", timeout_s=_READ_TIMEOUT_S)


def statistics(cluster: Cluster, tenant: str, since: datetime | None = None) -> LogStatistics:
    """Return counts and percentiles over the log of a tenant. Raises StoreError."""
    aggregations: dict[str, Any] = {
        "queries": {
            "filter": {"term": {"kind": "query"}},
            "aggs": {
                "without_results": {"filter": {"term": {"total": 0}}},
                "degraded": {"filter": {"exists": {"field": "degraded"}}},
                "abstained": {"filter": {"term": {"abstained": True}}},
                "routes": {
                    "terms": {"field": "route"},
                    "aggs": {"ms": {"percentiles": {"field": "total_ms", "percents": [50, 95]}}},
                },
            },
        },
        "feedback": {
            "filter": {"term": {"kind": "feedback"}},
            "aggs": {
                "of_results": {"filter": {"exists": {"field": "result_id"}}},
                "relevant": {"filter": {"term": {"label": "relevant"}}},
            },
        },
    }
    found = _aggregate(cluster, _filters(tenant, since), aggregations)
    if not found:  # there is no month at all
        return LogStatistics(0, 0, 0, 0, 0, 0, 0, ())
    queries, feedback = found["queries"], found["feedback"]
    return LogStatistics(
        queries=queries["doc_count"],
        without_results=queries["without_results"]["doc_count"],
        degraded=queries["degraded"]["doc_count"],
        abstained=queries["abstained"]["doc_count"],
        feedback=feedback["doc_count"],
        of_results=feedback["of_results"]["doc_count"],
        relevant=feedback["relevant"]["doc_count"],
        latency=tuple(
            Latency(bucket["key"], bucket["doc_count"], bucket["ms"]["values"]["50.0"], bucket["ms"]["values"]["95.0"])
            for bucket in sorted(queries["routes"]["buckets"], key=lambda bucket: str(bucket["key"]))
        ),
    )


def query_hashes(cluster: Cluster, tenant: str, since: datetime | None = None) -> Iterator[list[str]]:
    """Yield the hashes of all distinct queries asked or judged since then, in pages. Raises StoreError."""
    for page in distinct(partial(_aggregate, cluster, _filters(tenant, since)), ["query_hash"], _HASHES):
        yield [bucket["key"]["query_hash"] for bucket in page]


def newest_queries(cluster: Cluster, tenant: str, hashes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the newest entry of each of these queries, whatever its time; queries without an entry are missing."""
    body = {
        "size": len(hashes),
        "query": {
            "bool": {
                "filter": [*_filters(tenant), {"term": {"kind": "query"}}, {"terms": {"query_hash": list(hashes)}}]
            }
        },
        "collapse": {"field": "query_hash"},
        "sort": [{"timestamp": "desc"}, {"query_id": "desc"}],
        "track_total_hits": False,
    }
    hits = _search(cluster, body)["hits"]["hits"]
    return {hit["_source"]["query_hash"]: hit["_source"] for hit in hits}


def votes(
    cluster: Cluster, tenant: str, hashes: Sequence[str], since: datetime | None = None
) -> Iterator[tuple[str, Vote]]:
    """Yield the votes since then on the results of these queries: pairs of (hash, vote). Raises StoreError."""
    fields = ("query_hash", "document_id", "result_id", "label")
    filters = [*_filters(tenant, since), {"term": {"kind": "feedback"}}, {"terms": {"query_hash": list(hashes)}}]
    for page in distinct(partial(_aggregate, cluster, filters), fields, _PAGE):
        for bucket in page:
            key = bucket["key"]
            yield (
                key["query_hash"],
                Vote(key["document_id"], key["result_id"], key["label"], int(bucket["doc_count"])),
            )


def _filters(tenant: str, since: datetime | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"term": {"tenant": tenant}}]
    if since is not None:
        found.append({"range": {"timestamp": {"gte": since.isoformat()}}})
    return found


def _aggregate(cluster: Cluster, filters: list[dict[str, Any]], aggregations: dict[str, Any]) -> dict[str, Any]:
    body = {"size": 0, "query": {"bool": {"filter": filters}}, "aggs": aggregations, "track_total_hits": False}
    found: dict[str, Any] = _search(cluster, body).get("aggregations", {})
    return found


def _search(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    """Search all months. A partial answer is an error, because its counts would be wrong."""
    params = {"allow_partial_search_results": "false"}
    found: dict[str, Any] = cluster.request(
        "POST", f"/{ALL_MONTHS}/_search", params=params, body=body, timeout_s=_READ_TIMEOUT_S
    )
    if found.get("timed_out"):
        raise StoreError("OpenSearch ran out of time over the query log: limit the period with --since")
    return found
