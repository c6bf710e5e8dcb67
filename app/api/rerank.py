"""``POST /v1/rerank`` and ``/v2/rerank``, compatible with Cohere and Jina."""

from __future__ import annotations

import uuid
from typing import Literal

from flask import Response

from app.api import schemas
from app.api.bodies import read_json, services, write_json
from app.api.endpoint import ApiBlueprint, Endpoint
from app.errors import FieldProblem, InvalidInput
from app.gateway.audit import note
from app.gateway.roles import Role
from reranker.documents import UnrankableDocument, as_object, ranked_texts

blueprint = ApiBlueprint("rerank", "models")


def _endpoint(path: str) -> Endpoint:
    request, answer = schemas.RerankDocumentsRequest, schemas.RerankResponse
    return Endpoint("POST", path, request, answer, role=Role.SEARCH, audit="rerank", imitates="cohere")


@blueprint.declare(_endpoint("/v1/rerank"))
def rerank() -> Response:
    """Rank your own documents by relevance, compatible with Cohere and Jina. Best first; ties in the order sent."""
    return _rerank("1")


@blueprint.declare(_endpoint("/v2/rerank"))
def rerank_v2() -> Response:
    """Rank your own documents by relevance, compatible with Cohere's second API. The same as the first."""
    return _rerank("2")


def _rerank(version: Literal["1", "2"]) -> Response:
    request = read_json(schemas.RerankDocumentsRequest)
    note(documents=len(request.documents))
    ranked = services().rerank.run(
        request.query,
        _texts(request),
        model=services().settings.server.model_named(request.model),
        top_n=request.top_n,
        max_tokens=request.max_tokens_per_doc,
        timeout_ms=request.timeout_ms,
    )
    results = [
        schemas.RerankedDocument(
            index=place,
            relevance_score=score,
            document=as_object(request.documents[place]) if request.return_documents else None,
        )
        for place, score in ranked.ranking
    ]
    warnings = list(ranked.warnings)
    meta = schemas.RerankMeta(api_version=schemas.ApiVersion(version=version), warnings=warnings)
    return write_json(
        schemas.RerankResponse(
            id=str(uuid.uuid4()),
            meta=meta,
            model=ranked.model,
            results=results,
            truncated=ranked.truncated,
            warnings=warnings,
        )
    )


def _texts(request: schemas.RerankDocumentsRequest) -> list[str]:
    try:
        return ranked_texts(request.documents, request.rank_fields)
    except UnrankableDocument as error:
        loc = ("body", "documents", *error.place)
        detail = f"{'.'.join(map(str, loc))}: {error.detail}"
        raise InvalidInput(detail, problems=[FieldProblem(loc, error.detail)]) from error
