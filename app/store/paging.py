"""Results of any number, a page at a time: distinct values, and whole indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.store.client import Cluster

_SCROLL = "5m"
"""Time for which a scan is kept between two pages."""


def distinct(
    search: Callable[[dict[str, Any]], Any], fields: Sequence[str], size: int, **inner: Any
) -> Iterator[list[dict[str, Any]]]:
    """Yield the buckets of all distinct values of `fields` in order, `size` at a time, so that they are never all in
    memory.

    Args:
        search: sends aggregations, and returns their results; empty if no index exists.
        inner: aggregations of each bucket.
    """
    composite: dict[str, Any] = {"size": size, "sources": [{name: {"terms": {"field": name}}} for name in fields]}
    aggregation = {"composite": composite, "aggs": inner} if inner else {"composite": composite}
    while True:
        found = search({"page": aggregation}).get("page", {})
        if found.get("buckets"):
            yield found["buckets"]
        if "after_key" not in found:
            return
        composite["after"] = found["after_key"]


def scan(
    cluster: Cluster, path: str, body: dict[str, Any], *, timeout_s: float | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the hits of a search of `path`, of all shards, a page of ``size`` at a time, in no order.

    Raises:
        StoreError: as `Cluster.request`.
    """
    params = {"scroll": _SCROLL, "allow_partial_search_results": "false"}
    body = {**body, "sort": ["_doc"]}
    found = cluster.request("POST", f"/{path}/_search", params=params, body=body, timeout_s=timeout_s)
    try:
        while hits := found["hits"]["hits"]:
            yield hits
            more = {"scroll": _SCROLL, "scroll_id": found["_scroll_id"]}
            found = cluster.request("POST", "/_search/scroll", body=more, timeout_s=timeout_s)
    finally:
        cluster.request("DELETE", "/_search/scroll", body={"scroll_id": [found["_scroll_id"]]}, timeout_s=timeout_s)
