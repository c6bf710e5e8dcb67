"""Pure functions that build the search bodies; each has a golden test. Nothing here talks to a cluster.

The order of the legs is fixed: lexical first, dense second; the weights in the pipelines follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.store.filters import Clause

READ_ALIAS = "braid-passages"
LINEAR_PIPELINE = "braid-hybrid-linear"
RRF_PIPELINE = "braid-hybrid-rrf"
OUTSIDE = "outside"
"""The count of a leg's hits that the other leg does not match: what both match together is then the sum of two."""

Body = dict[str, Any]

_RETURNED_FIELDS = (
    "document_id",
    "title",
    "section_heading",
    "text",
    "source_id",
    "source_type",
    "uri",
    "page",
    "position",
    "timestamp",
    "topic_tags",
)


def lexical_leg(query: str, filters: Sequence[Clause]) -> Body:
    """BM25 over `content` (title, section heading and text copied into one English-analysed field)."""
    return {"bool": {"must": [{"match": {"content": {"query": query}}}], "filter": list(filters)}}


def vector_leg(vector: Sequence[float], k: int, filters: Sequence[Clause]) -> Body:
    """The `k` nearest passages of each shard among those that pass the filter (which k-NN applies while searching)."""
    return {"knn": {"embedding": {"vector": list(vector), "k": k, "filter": {"bool": {"filter": list(filters)}}}}}


def hybrid_query(query: str, vector: Sequence[float], depth: int, filters: Sequence[Clause]) -> Body:
    """Both legs, each with the same filter: a filter around `hybrid` would leak or starve results on 2.19.

    `depth` is the number of candidates that each leg gives per shard; it stays the same on every page.
    """
    return {
        "hybrid": {
            "queries": [lexical_leg(query, filters), vector_leg(vector, depth, filters)],
            "pagination_depth": depth,
        }
    }


def search_body(query: Body, *, size: int, timeout_ms: int, outside: Body | None = None) -> Body:
    """A whole search body; vectors never leave the cluster. Hits that `outside` does not match are counted too."""
    body: Body = {
        "query": query,
        "size": size,
        "_source": list(_RETURNED_FIELDS),
        "track_total_hits": True,
        "timeout": f"{timeout_ms}ms",
    }
    if outside is not None:
        body["aggs"] = {OUTSIDE: {"filter": {"bool": {"must_not": [outside]}}}}
    return body


def linear_pipeline(alpha: float) -> Body:
    """An inline search pipeline: min-max normalisation, weighted arithmetic mean, `alpha` the dense share."""
    return {
        "phase_results_processors": [
            {
                "normalization-processor": {
                    "normalization": {"technique": "min_max"},
                    "combination": {
                        "technique": "arithmetic_mean",
                        "parameters": {"weights": [round(1.0 - alpha, 6), round(alpha, 6)]},
                    },
                }
            }
        ]
    }


def rrf_pipeline(rank_constant: int) -> Body:
    """An inline search pipeline for reciprocal rank fusion (one shard only before OpenSearch 3.5)."""
    return {
        "phase_results_processors": [
            {"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": rank_constant}}}
        ]
    }
