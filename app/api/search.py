"""``POST /v1/search``."""

from __future__ import annotations

import uuid
from typing import Any

from flask import Blueprint, Response

from app.api import schemas
from app.api.bodies import read_json, scope, services, write_json
from app.passage import Hit
from app.search.request import SearchRequest
from app.search.service import SearchResult

blueprint = Blueprint("search", __name__)


@blueprint.post("/v1/search")
def search() -> Response:
    """Passages that match a query, best first."""
    request = read_json(SearchRequest)
    found = services().search.search(request, scope())
    return write_json(schemas.SearchResponse(**search_fields(request, found)))


def search_fields(request: SearchRequest, found: SearchResult) -> dict[str, Any]:
    """The fields of a SearchResponse; an answer has them too."""
    return {
        "query_id": uuid.uuid4().hex,
        "results": [result_item(hit) for hit in found.hits],
        "total": found.total,
        "timings": found.timings,
        "degraded": [schemas.DegradedItem(stage=item.stage, reason=item.reason) for item in found.degraded],
        "cache": "off",
        "index_generation": services().generation.current(scope().tenant),
        "explanation": _explanation(request, found) if request.explain else None,
    }


def result_item(hit: Hit) -> schemas.ResultItem:
    """One hit as the API shows it."""
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
        scores=schemas.Scores(lexical=hit.lexical, dense=hit.dense, fused=hit.fused, rerank=hit.rerank),
    )


def _explanation(request: SearchRequest, found: SearchResult) -> dict[str, Any]:
    settings = services().settings
    explained: dict[str, Any] = {"way": found.plan.way, "reason": found.plan.reason}
    if request.mode == "hybrid":
        explained["candidates"] = request.candidates or settings.candidates
        explained["fusion"] = {"method": request.fusion.method}
        if request.fusion.method == "linear":
            alpha = request.fusion.alpha
            explained["fusion"] |= {
                "alpha": settings.alpha if alpha is None else alpha,
                "normalization": "min_max",
                "combination": "arithmetic_mean",
            }
        else:
            explained["fusion"] |= {"rank_constant": settings.rrf_rank_constant}
    return explained
