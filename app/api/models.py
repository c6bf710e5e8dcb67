"""``POST /v1/embeddings``, ``GET /v1/models`` and ``/v1/models/ID``, compatible with OpenAI."""

from __future__ import annotations

import base64

from flask import Response

from app.api import schemas
from app.api.bodies import read_json, services, write_json
from app.api.chat_schemas import MODEL
from app.api.endpoint import ApiBlueprint, Endpoint
from app.errors import FieldProblem, NotFound
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
    note(texts=len(request.input))
    model = services().settings.server.model_named(request.model)
    found = services().embed.run(request.input, request.input_type, model=model, dimensions=request.dimensions)
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
    return write_json(schemas.ModelList(data=[_item(name) for name in served_models()]))


@blueprint.declare(
    Endpoint(
        "GET",
        "/v1/models/<path:model_id>",
        answer=schemas.ModelItem,
        role=Role.SEARCH,
        audit=None,
        problems=(404,),
        imitates="openai",
    )
)
def model(model_id: str) -> Response:
    """Describe a served model, by its name or another one that the operator has given it."""
    if model_id not in served_models():
        message = f"model {model_id!r} is not served: this service has {', '.join(served_models())}"
        raise NotFound(message, problems=[FieldProblem(("path", "model"), message)])
    return write_json(_item(model_id))


def served_models() -> list[str]:
    """Return the names of the served models, and the other names that BRAID_MODEL_ALIASES gives them."""
    settings, reranker = services().settings, services().reranker
    found = [services().encoder.name]
    if reranker is not None:
        found.append(reranker.name)
    found.append(MODEL)
    found += [name for name, target in settings.server.aliases.items() if target in found]
    return list(dict.fromkeys(found))


def _item(name: str) -> schemas.ModelItem:
    return schemas.ModelItem(id=name, created=_CREATED, owned_by="braid")
