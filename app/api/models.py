"""``POST /v1/embeddings`` and ``GET /v1/models``, compatible with OpenAI."""

from __future__ import annotations

import base64

from flask import Response

from app.api import schemas
from app.api.bodies import read_json, services, write_json
from app.api.endpoint import ApiBlueprint, Endpoint
from app.gateway.audit import note
from app.gateway.roles import Role

blueprint = ApiBlueprint("models", "models")

_CREATED = 1767225600
"""Creation time of the models: OpenAI's clients require one; ours is the project's first day."""


@blueprint.declare(
    Endpoint(
        "POST",
        "/v1/embeddings",
        schemas.EmbeddingsRequest,
        schemas.EmbeddingsResponse,
        role=Role.SEARCH,
        audit="embed",
        imitates="openai",
    )
)
def embeddings() -> Response:
    """Embed texts, compatible with OpenAI."""
    request = read_json(schemas.EmbeddingsRequest)
    texts = [request.input] if isinstance(request.input, str) else request.input
    note(texts=len(texts))
    found = services().embed.run(texts, request.input_type, model=request.model, dimensions=request.dimensions)
    as_text = request.encoding_format == "base64"
    items = [
        schemas.EmbeddingItem(
            index=index,
            embedding=base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_text else vector.tolist(),
        )
        for index, vector in enumerate(found.vectors)
    ]
    usage = schemas.Usage(prompt_tokens=found.tokens, total_tokens=found.tokens)
    return write_json(schemas.EmbeddingsResponse(data=items, model=found.model, usage=usage))


@blueprint.declare(
    Endpoint("GET", "/v1/models", answer=schemas.ModelList, role=Role.SEARCH, audit=None, imitates="openai")
)
def models() -> Response:
    """List the served models."""
    found = [services().encoder.name]
    if services().settings.llm.url is not None:
        found.append(services().settings.llm.model)
    return write_json(
        schemas.ModelList(data=[schemas.ModelItem(id=name, created=_CREATED, owned_by="braid") for name in found])
    )
