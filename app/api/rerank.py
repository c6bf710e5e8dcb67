"""``POST /v1/rerank``, compatible with Cohere and Jina."""

from __future__ import annotations

from flask import Response

from app.api import schemas
from app.api.bodies import read_json, services, write_json
from app.api.endpoint import ApiBlueprint, Endpoint
from app.gateway.audit import note
from app.gateway.roles import Role

blueprint = ApiBlueprint("rerank", "models")


@blueprint.declare(
    Endpoint(
        "POST",
        "/v1/rerank",
        schemas.RerankDocumentsRequest,
        schemas.RerankResponse,
        role=Role.SEARCH,
        audit="rerank",
        imitates="cohere",
    )
)
def rerank() -> Response:
    """Rank your own documents by relevance, compatible with Cohere and Jina. Best first; ties in the order sent."""
    request = read_json(schemas.RerankDocumentsRequest)
    texts = [item if isinstance(item, str) else item.text for item in request.documents]
    note(documents=len(texts))
    ranked = services().rerank.run(
        request.query, texts, model=request.model, top_n=request.top_n, timeout_ms=request.timeout_ms
    )
    results = [
        schemas.RerankedDocument(
            index=place,
            relevance_score=score,
            document=schemas.RerankText(text=texts[place]) if request.return_documents else None,
        )
        for place, score in ranked.ranking
    ]
    return write_json(
        schemas.RerankResponse(
            model=ranked.model, results=results, truncated=ranked.truncated, warnings=list(ranked.warnings)
        )
    )
