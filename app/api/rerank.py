"""``POST /v1/rerank``, as Cohere's and Jina's."""

from __future__ import annotations

import numpy as np
from flask import Blueprint, Response

from app.api import schemas
from app.api.bodies import read_json, services, write_json
from app.deadline import Deadline
from app.errors import FieldProblem, InvalidInput, SwitchedOff
from app.gateway.audit import note

blueprint = Blueprint("rerank", __name__)


@blueprint.post("/v1/rerank")
def rerank() -> Response:
    """The caller's own documents by relevance to a query, best first; at equal scores in the order they came."""
    request = read_json(schemas.RerankDocumentsRequest)
    deadline = Deadline.after(request.timeout_ms or services().settings.timeout_ms)
    reranker = services().reranker
    if reranker is None:
        raise SwitchedOff(
            "this service has no reranker: name a cross-encoder in BRAID_RERANKER_MODEL or BRAID_RERANKER_URL, "
            "or take an embedding model that gives vectors for tokens"
        )
    if request.model is not None and request.model != reranker.name:
        message = f"model {request.model!r} is not served here; this service has {reranker.name!r}"
        raise InvalidInput(message, problems=[FieldProblem(("body", "model"), message)])
    texts = [item if isinstance(item, str) else item.text for item in request.documents]
    note(documents=len(texts))
    warnings = []
    if request.top_n is not None and request.top_n > len(texts):
        warnings.append(f"top_n {request.top_n} is more than the {len(texts)} documents: all are returned")
    with services().admission.enter(deadline):
        rated = reranker.score_texts(request.query, texts, deadline)
    order = np.argsort(-rated.scores, kind="stable")[: request.top_n]
    results = [
        schemas.RerankedDocument(
            index=index,
            relevance_score=float(rated.scores[index]),
            document=schemas.RerankText(text=texts[index]) if request.return_documents else None,
        )
        for index in order.tolist()
    ]
    return write_json(
        schemas.RerankResponse(model=reranker.name, results=results, truncated=rated.truncated, warnings=warnings)
    )
