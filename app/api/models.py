"""``POST /v1/embeddings`` and ``GET /v1/models``, as OpenAI's."""

from __future__ import annotations

import base64

import numpy as np
from flask import Blueprint, Response

from app.api import schemas
from app.api.bodies import read_json, services, write_json
from app.deadline import Deadline
from app.errors import FieldProblem, InvalidInput
from app.gateway.audit import note

blueprint = Blueprint("models", __name__)

_CREATED = 1767225600
"""OpenAI's clients want a time; the models have none that means anything, so it is the project's first day."""


@blueprint.post("/v1/embeddings")
def embeddings() -> Response:
    """Vectors of the service's own embedding model."""
    request = read_json(schemas.EmbeddingsRequest)
    encoder = services().encoder
    if request.model is not None and request.model != encoder.name:
        message = f"model {request.model!r} is not served here; this service has {encoder.name!r}"
        raise InvalidInput(message, problems=[FieldProblem(("body", "model"), message)])
    if request.dimensions is not None and request.dimensions != encoder.dimension:
        message = (
            f"dimensions {request.dimensions} can't be had: the vectors of {encoder.name} have {encoder.dimension}"
        )
        raise InvalidInput(message, problems=[FieldProblem(("body", "dimensions"), message)])
    texts = [request.input] if isinstance(request.input, str) else request.input
    note(texts=len(texts))
    encode = encoder.encode_queries if request.input_type == "query" else encoder.encode_passages
    with services().admission.enter(Deadline.after(services().settings.timeout_ms)):
        vectors = np.asarray(encode(texts), dtype="<f4")
    items = [
        schemas.EmbeddingItem(
            index=index,
            embedding=base64.b64encode(vector.tobytes()).decode()
            if request.encoding_format == "base64"
            else vector.tolist(),
        )
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(len(encoder.token_offsets(text)) for text in texts)
    usage = schemas.Usage(prompt_tokens=tokens, total_tokens=tokens)
    return write_json(schemas.EmbeddingsResponse(data=items, model=encoder.name, usage=usage))


@blueprint.get("/v1/models")
def models() -> Response:
    """The embedding model, and the language model if one is connected."""
    found = [services().encoder.name]
    if services().settings.llm_url is not None:
        found.append(services().settings.llm_model)
    return write_json(
        schemas.ModelList(data=[schemas.ModelItem(id=name, created=_CREATED, owned_by="braid") for name in found])
    )
