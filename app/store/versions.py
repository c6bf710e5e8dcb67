"""What tells that a tenant's passages changed, whoever changed them: asked of what searches see."""

from __future__ import annotations

from dataclasses import dataclass

from app.access import ACCESS_FIELDS
from app.errors import StoreError
from app.store.client import Cluster
from app.store.filters import Scope, clauses

_MOST_USERS = 1000


@dataclass(frozen=True, slots=True)
class TenantState:
    """What searches of a tenant see now.

    `fingerprint` is another text after passages were added, replaced, altered or deleted. `users`: those that a
    list of readers names one by one (``user:SUB``); None where they are too many to know.
    """

    fingerprint: str
    users: frozenset[str] | None


def tenant_state(cluster: Cluster, tenant: str, timeout_s: float) -> TenantState:
    """Ask for the state of a tenant.

    The fingerprint is made of the number of passages, the sum of their sequence numbers (every write gives a passage a
    new, higher one) and the newest `ingested_at`. OpenSearch keeps the answer until the next refresh that changes a
    shard, so that it costs next to nothing while nothing is written. Not seen is a passage that came and went between
    two questions.

    Raises:
        StoreError: it can't be asked, or a shard did not answer.
    """
    body = {
        "size": 0,
        "track_total_hits": True,
        "query": {"bool": {"filter": clauses(Scope(tenant))}},
        "aggs": {
            "written": {"sum": {"field": "_seq_no"}},
            "newest": {"max": {"field": "ingested_at"}},
            # not `user:.*`: OpenSearch 2.19 fails on a plain prefix that sorts behind all terms there are
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
        raise StoreError("OpenSearch could not say whether passages changed: a shard did not answer")
    total, sums = found["hits"]["total"]["value"], found["aggregations"]
    users = [sums[f"users of {field}"] for field in ACCESS_FIELDS]
    return TenantState(
        f"{total}-{sums['written']['value']:.0f}-{sums['newest']['value'] or 0:.0f}",
        None
        if any(named["sum_other_doc_count"] for named in users)
        else frozenset(bucket["key"] for named in users for bucket in named["buckets"]),
    )
