"""Reads search responses: hits, totals, partial failures; scores that no caller may ever see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.errors import StoreError
from app.passage import Hit
from app.store.queries import OUTSIDE


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Hits of one request to OpenSearch, best first. `failed_shards` of `shards` gave nothing.

    `outside`: how many of the hits the other leg does not match, where that was asked for.
    """

    hits: tuple[Hit, ...]
    total: int
    took_ms: int
    timed_out: bool
    shards: int
    failed_shards: int
    outside: int | None = None


def read_response(response: dict[str, Any]) -> Retrieved:
    """Turn a search response into hits.

    Raises:
        StoreError: a score is negative. A `hybrid` query that no pipeline fused answers with delimiter scores
            (-9.549512E9, -4.4224404E9) and doubled hits; real scores of all our queries are never negative.
    """
    shards = response.get("_shards", {})
    hits = []
    for raw in response["hits"]["hits"]:
        score = float(raw["_score"] or 0.0)
        if score < 0:
            raise StoreError(
                "OpenSearch answered a hybrid query with delimiter scores: its search pipeline did not run; "
                "run `braid templates apply`"
            )
        hits.append(_hit(raw, score))
    total = response["hits"].get("total", {})
    return Retrieved(
        hits=tuple(hits),
        total=int(total.get("value", len(hits))),
        took_ms=int(response.get("took", 0)),
        timed_out=bool(response.get("timed_out", False)),
        shards=int(shards.get("total", 1)),
        failed_shards=int(shards.get("failed", 0)),
        outside=response["aggregations"][OUTSIDE]["doc_count"] if "aggregations" in response else None,
    )


def _hit(raw: dict[str, Any], score: float) -> Hit:
    source = raw["_source"]
    return Hit(
        id=raw["_id"],
        document_id=source["document_id"],
        title=source.get("title", ""),
        section_heading=source.get("section_heading", ""),
        text=source["text"],
        source_id=source.get("source_id", ""),
        source_type=source.get("source_type", ""),
        uri=source.get("uri", ""),
        page=source.get("page"),
        position=int(source.get("position", 0)),
        timestamp=source.get("timestamp"),
        topic_tags=tuple(source.get("topic_tags") or ()),
        score=score,
    )
