"""Reads search responses: hits, totals, partial failures; scores that no caller may ever see."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import StoreError
from app.passage import Candidate, Hit
from app.store.highlights import read_highlight
from app.store.queries import CODES, EXACT, MOST_EXACT, OUTSIDE, TOKEN_VECTORS, WORDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request to OpenSearch went: `failed_shards` of `shards` gave nothing."""

    took_ms: int
    timed_out: bool
    shards: int
    failed_shards: int


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages of one request, best first; `total` counts all matches.

    `vectors`, `tokens` (packed token vectors) and `highlights` by passage id, where they were asked for and are there.
    """

    hits: tuple[Hit, ...]
    total: int
    outcome: Outcome
    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    tokens: dict[str, bytes] = field(default_factory=dict)
    highlights: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leg:
    """What one leg ranked, best first, and what it counted.

    `outside`: hits that the other leg does not match. `exact`: identifier -> how many passages hold it, and the first
    of them; where they are few, they are among the candidates, however low they rank. `missing`: words of the query
    that no passage holds which the caller may see.
    """

    candidates: tuple[Candidate, ...]
    total: int
    outcome: Outcome
    outside: int | None = None
    exact: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def read_response(response: dict[str, Any]) -> Retrieved:
    """Turn a search response into passages.

    Raises:
        StoreError: a score is negative. A `hybrid` query that no pipeline fused answers with delimiter scores
            (-9.549512E9, -4.4224404E9) and doubled hits; real scores of all our queries are never negative.
    """
    hits, vectors, tokens, highlights = [], {}, {}, {}
    for raw in response["hits"]["hits"]:
        score = float(raw["_score"] or 0.0)
        if score < 0:
            raise StoreError(
                "OpenSearch answered a hybrid query with delimiter scores: its search pipeline did not run; "
                "run `braid templates apply`"
            )
        hits.append(_hit(raw, score))
        if "embedding" in raw["_source"]:
            vectors[raw["_id"]] = np.asarray(raw["_source"]["embedding"], np.float32)
        for packed in raw.get("fields", {}).get(TOKEN_VECTORS, ()):
            tokens[raw["_id"]] = base64.b64decode(packed + "=" * (-len(packed) % 4))  # doc values come without padding
        if "highlight" in raw:
            highlights[raw["_id"]] = read_highlight(raw["highlight"])
    return Retrieved(tuple(hits), _total(response, len(hits)), read_outcome(response), vectors, tokens, highlights)


def read_leg(response: dict[str, Any]) -> Leg:
    """Turn a leg's response into candidates and counts.

    Raises:
        StoreError: a passage has no `passage_id`: it was not written through the ingest pipeline.
    """
    candidates = [_candidate(raw, raw["sort"][0]) for raw in response["hits"]["hits"]]
    counts = response.get("aggregations", {})
    exact: dict[str, tuple[int, tuple[str, ...]]] = {}
    named: dict[str, Candidate] = {}
    for code, bucket in counts.get(CODES, {}).get("buckets", {}).items():
        count = int(bucket["doc_count"])
        first = [_candidate(raw, raw["_score"]) for raw in bucket[EXACT]["hits"]["hits"]]
        exact[code] = (count, tuple(item.id for item in first))
        if count <= MOST_EXACT:
            named |= {item.id: item for item in first}
    further = named.keys() - {item.id for item in candidates}
    candidates += sorted((named[key] for key in further), key=lambda item: (-item.score, item.id))
    words = counts.get(WORDS, {}).get("buckets", {})
    return Leg(
        tuple(candidates),
        _total(response, len(candidates)),
        read_outcome(response),
        outside=int(counts[OUTSIDE]["doc_count"]) if OUTSIDE in counts else None,
        exact=exact,
        missing=tuple(word for word, bucket in words.items() if bucket["doc_count"] == 0),
    )


def _candidate(raw: dict[str, Any], score: float) -> Candidate:
    fields = raw.get("fields", {})
    if "passage_id" not in fields:
        raise StoreError(
            "a passage has no passage_id: it was indexed without the ingest pipeline braid-passages; "
            "index it again through the alias braid-passages-write"
        )
    return Candidate(fields["passage_id"][0], fields["document_id"][0], float(score))


def _total(response: dict[str, Any], shown: int) -> int:
    return int(response["hits"].get("total", {}).get("value", shown))


def read_outcome(response: dict[str, Any]) -> Outcome:
    """How the request went."""
    shards = response.get("_shards", {})
    return Outcome(
        took_ms=int(response.get("took", 0)),
        timed_out=bool(response.get("timed_out", False)),
        shards=int(shards.get("total", 1)),
        failed_shards=int(shards.get("failed", 0)),
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
        content_hash=source.get("content_hash", ""),
        pages=tuple(source.get("pages") or ()),
        language=source.get("language"),
    )
