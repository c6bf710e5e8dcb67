"""Rendering of searches and answers as response bodies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from app.api import schemas
from app.api.shown_scores import ShownScores
from app.generation.answer import Answer
from app.generation.citations import Citation
from app.passage import FIELDS, Hit
from app.search.request import SearchRequest
from app.search.service import SearchResult
from app.store.filters import Scope

_SHOWN = ("id", *(name for name, stored in FIELDS.items() if stored.returned))
"""Fields of a hit that are shown unchanged."""


@dataclass(frozen=True, slots=True)
class BodyRenderer:
    """Renders bodies that may be cached: fields of a single call are empty, and set later."""

    rrf_rank_constant: int
    """Rank constant from the settings, for explanations."""

    def search(self, request: SearchRequest, scope: Scope, found: SearchResult) -> dict[str, Any]:
        """Return the body of a SearchResponse for the caller with `scope`."""
        fields = search_fields(request, found, scope, self.rrf_rank_constant)
        return schemas.SearchResponse(**fields).model_dump(mode="json")

    def answer(self, request: SearchRequest, scope: Scope, found: SearchResult, made: Answer) -> dict[str, Any]:
        """Return the body of an AnswerResponse for the caller with `scope`."""
        fields = search_fields(request, found, scope, self.rrf_rank_constant)
        degraded = [schemas.DegradedItem(stage=stage, reason=reason) for stage, reason in made.degraded]
        return schemas.AnswerResponse(
            **{**fields, "degraded": [*fields["degraded"], *degraded]},
            answer=made.text,
            citations=[citation_item(citation) for citation in made.citations],
            abstained=made.abstained,
            model=made.model,
            usage=made.usage,
        ).model_dump(mode="json")

    def citation(self, citation: Citation) -> dict[str, Any]:
        """Return a CitationItem."""
        return citation_item(citation).model_dump(mode="json")

    def search_part(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of an AnswerResponse's body that a SearchResponse also has."""
        return {name: value for name, value in body.items() if name in schemas.SearchResponse.model_fields}


def search_fields(request: SearchRequest, found: SearchResult, scope: Scope, rrf_rank_constant: int) -> dict[str, Any]:
    """Return the cacheable fields of a SearchResponse, and empty ones for the others; an answer has them, too.

    Args:
        scope: scope of the caller, which limits what is shown.
        rrf_rank_constant: rank constant from the settings, for the explanation.
    """
    shown = ShownScores.to(scope, found)
    return {
        "query_id": "",
        "results": [
            result_item(hit, found, shown, place) for place, hit in enumerate(found.hits, start=request.from_ + 1)
        ],
        "total": found.total.value,
        "total_relation": found.total.relation,
        "timings": {},
        "degraded": [schemas.DegradedItem(stage=item.stage, reason=item.reason) for item in found.degraded],
        "cache": "off",
        "index_generation": None,
        "explanation": _explanation(request, found, shown, rrf_rank_constant) if request.explain else None,
    }


def result_item(hit: Hit, found: SearchResult, shown: ShownScores, place: int) -> schemas.ResultItem:
    """Return one hit as in the API; `place` is its own, from 1."""
    return schemas.ResultItem.model_validate(
        {name: getattr(hit, name) for name in _SHOWN}
        | {
            "score": shown.score(hit, place),
            "scores": shown.stages(hit),
            "duplicates": list(found.folded.get(hit.id, ())),
            "highlights": found.highlights.get(hit.id),
        }
    )


def citation_item(citation: Citation) -> schemas.CitationItem:
    """Return a citation as in the API."""
    return schemas.CitationItem(
        marker=citation.marker,
        id=citation.id,
        document_id=citation.document_id,
        page=citation.page,
        quote=citation.quote,
    )


def _explanation(
    request: SearchRequest, found: SearchResult, shown: ShownScores, rrf_rank_constant: int
) -> dict[str, Any]:
    """Explain the ranking, in terms of docs/http.md."""
    explained: dict[str, Any] = {
        "way": found.plan.way,
        "reason": found.plan.reason,
        "candidates": found.depth,
        "tuning": found.tuning.version,
        "boosts": found.tuning.boosts.model_dump(),
        "exact": list(found.exact),
        "corrected": list(found.corrected),
        "accents": list(found.accents),
        "stop_words": found.stop_words,
    }
    if found.rerank is not None:
        explained["rerank"] = asdict(found.rerank)
    if request.mode != "hybrid":
        return explained
    fused: dict[str, Any] = {"method": request.fusion.method}
    if request.fusion.method == "rrf":
        fused["rank_constant"] = rrf_rank_constant
    elif found.weight is not None:
        fused |= {
            **shown.weight(found.weight),
            "normalization": found.normalization,
            "combination": "arithmetic_mean",
        }
    return explained | {"fusion": fused}
