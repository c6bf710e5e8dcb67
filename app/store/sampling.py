"""Random samples of the passages that a scope can see."""

from __future__ import annotations

from dataclasses import dataclass

from app.store.client import Cluster
from app.store.filters import Scope, clauses

MOST = 2000
"""Maximum passages per request: their texts are returned together."""
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class PassageSample:
    """Text, title and heading of a sampled passage."""

    title: str
    section_heading: str
    text: str


def sample_passages(cluster: Cluster, scope: Scope, size: int, *, seed: int = 0) -> list[PassageSample]:
    """Return at most `size` (up to `MOST`) passages; reproducible by seed while the index does not change.

    Raises:
        StoreError: OpenSearch is unavailable or rejected the request.
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
        PassageSample(*(str(hit["_source"].get(name) or "") for name in ("title", "section_heading", "text")))
        for hit in hits
    ]
