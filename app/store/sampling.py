"""Passages drawn at random, from what a scope may see."""

from __future__ import annotations

from dataclasses import dataclass

from app.store.client import Cluster
from app.store.filters import Scope, clauses

MOST = 2000
"""Passages of one request: their texts travel at once."""
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a passage says, and where."""

    title: str
    section_heading: str
    text: str


def sample_passages(cluster: Cluster, scope: Scope, size: int, *, seed: int = 0) -> list[Sampled]:
    """At most `size` (up to `MOST`) passages; the same for the same seed, as long as the index does not change.

    Raises:
        StoreError: OpenSearch is away or refused.
    """
    body = {
        "size": min(size, MOST),
        "query": {
            "function_score": {
                "query": {"bool": {"filter": clauses(scope)}},
                "random_score": {"seed": seed, "field": "_seq_no"},
                "boost_mode": "replace",
            }
        },
        "_source": ["title", "section_heading", "text"],
        "track_total_hits": False,
    }
    hits = cluster.request("POST", f"/{cluster.read_alias}/_search", body=body, timeout_s=_TIMEOUT_S)["hits"]["hits"]
    return [
        Sampled(*(str(hit["_source"].get(name) or "") for name in ("title", "section_heading", "text"))) for hit in hits
    ]
