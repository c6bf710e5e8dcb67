"""``POST /v1/search``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response

from app.api import schemas
from app.api.bodies import read_json, scope, services, write_json
from app.feedback.entries import Route, entry_of
from app.feedback.ids import new_query_id
from app.passage import Hit
from app.search.request import SearchRequest
from app.search.service import SearchResult

blueprint = Blueprint("search", __name__)


@blueprint.post("/v1/search")
def search() -> Response:
    """Passages that match a query, best first."""
    request = read_json(SearchRequest)
    found = services().search.search(request, scope())
    fields = search_fields(request, found)
    log_query(request, found, fields, route="search")
    return write_json(schemas.SearchResponse(**fields))


def search_fields(request: SearchRequest, found: SearchResult) -> dict[str, Any]:
    """The fields of a SearchResponse; an answer has them too."""
    return {
        "query_id": new_query_id(),
        "results": [result_item(hit, found) for hit in found.hits],
        "total": found.total,
        "timings": found.timings,
        "degraded": [schemas.DegradedItem(stage=item.stage, reason=item.reason) for item in found.degraded],
        "cache": "off",
        "index_generation": services().generation.current(scope().tenant),
        "explanation": _explanation(request, found) if request.explain else None,
    }


def log_query(
    request: SearchRequest,
    found: SearchResult,
    fields: dict[str, Any],
    *,
    route: Route,
    gen_ms: float = 0.0,
    degraded: Sequence[str] = (),
    abstained: bool | None = None,
) -> None:
    """Hand what was asked and shown to the query log; costs the request no waiting.

    `fields` are those of `search_fields`; `gen_ms`, the further stages `degraded` and `abstained` are an answer's.
    """
    log = services().query_log
    if not log.enabled:
        return
    log.record(
        entry_of(
            services().settings,
            query_id=fields["query_id"],
            scope=scope(),
            query=request.query,
            route=route,
            mode=request.mode,
            fusion=request.fusion.method if found.plan.way in {"native", "legs"} else None,
            alpha=found.weight.alpha if found.weight is not None else None,
            total=found.total,
            hits=found.hits,
            first_rank=request.from_ + 1,
            total_ms=round(found.timings["total_ms"] + gen_ms, 3),
            degraded=[*(item.stage for item in found.degraded), *degraded],
            index_generation=fields["index_generation"],
            abstained=abstained,
        )
    )


def result_item(hit: Hit, found: SearchResult) -> schemas.ResultItem:
    """One hit as the API shows it."""
    highlights = found.highlights.get(hit.id)
    return schemas.ResultItem(
        id=hit.id,
        document_id=hit.document_id,
        title=hit.title,
        section_heading=hit.section_heading,
        text=hit.text,
        source_id=hit.source_id,
        source_type=hit.source_type,
        uri=hit.uri,
        page=hit.page,
        timestamp=hit.timestamp,
        topic_tags=list(hit.topic_tags),
        score=hit.score,
        scores=schemas.Scores(
            lexical=hit.lexical,
            dense=hit.dense,
            fused=hit.fused,
            rerank=hit.rerank,
            reranker=found.rerank.reranker if found.rerank is not None and hit.rerank is not None else None,
        ),
        duplicates=list(found.folded.get(hit.id, ())),
        highlights={name: list(parts) for name, parts in highlights.items()} if highlights is not None else None,
    )


def _explanation(request: SearchRequest, found: SearchResult) -> dict[str, Any]:
    """How the order came about, in names that docs/http.md explains."""
    explained: dict[str, Any] = {
        "way": found.plan.way,
        "reason": found.plan.reason,
        "candidates": found.depth,
        "tuning": found.tuning.version,
        "boosts": found.tuning.boosts.model_dump(),
        "exact": list(found.exact),
        "corrected": list(found.corrected),
    }
    if found.rerank is not None:
        explained["rerank"] = asdict(found.rerank)
    if request.mode != "hybrid":
        return explained
    fused: dict[str, Any] = {"method": request.fusion.method}
    if request.fusion.method == "rrf":
        fused["rank_constant"] = services().settings.rrf_rank_constant
    elif found.weight is not None:
        fused |= {
            "alpha": found.weight.alpha,
            "weight": found.weight.source,
            "weight_reason": found.weight.reason,
            "features": found.weight.features,
            "normalization": request.fusion.normalization or found.tuning.normalization,
            "combination": "arithmetic_mean",
        }
    return explained | {"fusion": fused}
