"""State of a tenant's passages, which changes with every write, whoever wrote."""

from __future__ import annotations

from dataclasses import dataclass

from app.access import ACCESS_FIELDS
from app.errors import StoreError
from app.store.client import Cluster
from app.store.filters import Scope, clauses

_MOST_USERS = 1000


@dataclass(frozen=True, slots=True)
class TenantState:
    """State of a tenant as searches see it.

    `fingerprint` changes when passages are added, replaced, altered or deleted. `users`: the users that access lists
    name individually (``user:SUB``); None if there are too many.
    """

    fingerprint: str
    users: frozenset[str] | None


def tenant_state(cluster: Cluster, tenant: str, timeout_s: float) -> TenantState:
    """Read the state of a tenant.

    The fingerprint consists of the number of passages, the sum of their sequence numbers (every write gives a passage a
    new, higher one) and the newest `ingested_at`. OpenSearch caches the answer until the next refresh that changes a
    shard, so that it costs next to nothing while nothing is written. A passage that is added and removed between two
    calls is not noticed.

    Raises:
        StoreError: the cluster or a shard did not answer.
    """
    body = {
        "size": 0,
        "track_total_hits": True,
        "query": {"bool": {"filter": clauses(Scope(tenant))}},
        "aggs": {
            "written": {"sum": {"field": "_seq_no"}},
            "newest": {"max": {"field": "ingested_at"}},
            # not `user:.*`: OpenSearch 2.19 fails on a plain prefix that sorts after all existing terms
            **{
                f"users of {field}": {"terms": {"field": field, "include": "user:.+", "size": _MOST_USERS}}
                for field in ACCESS_FIELDS
            },
        },
    }
    found = cluster.request(
        "POST",
        f"/{cluster.read_alias}/_search",
        params={"request_cache": "true", "allow_partial_search_results": "false"},
        body=body,
        timeout_s=timeout_s,
    )
    if found.get("timed_out") or found["_shards"]["failed"]:
        raise StoreError(
            "the state of the passages is unknown, because a shard did not answer: check the cluster's health"
        )
    total, sums = found["hits"]["total"]["value"], found["aggregations"]
    users = [sums[f"users of {field}"] for field in ACCESS_FIELDS]
    return TenantState(
        f"{total}-{sums['written']['value']:.0f}-{sums['newest']['value'] or 0:.0f}",
        None
        if any(named["sum_other_doc_count"] for named in users)
        else frozenset(bucket["key"] for named in users for bucket in named["buckets"]),
    )
