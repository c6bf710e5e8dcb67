"""The description of the HTTP API: one table makes ``/openapi.json``; ``/docs`` draws it, served locally."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import flask_swagger_ui
import orjson
from flask import Blueprint, Response, send_from_directory
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app import __version__
from app.api import schemas
from app.search.request import AnswerRequest, SearchRequest

blueprint = Blueprint("openapi", __name__)

_PAGE = Path(__file__).resolve().parent / "docs_page"
_SWAGGER = Path(flask_swagger_ui.__file__).resolve().parent / "dist"
_REF = "#/components/schemas/{model}"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: what goes in, what comes out, and the problem statuses that it may answer with."""

    method: str
    path: str
    name: str
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()
    parameters: tuple[Json, ...] = ()
    extra_body: Json | None = None
    extra_answer: Json | None = None
    accepted: type[BaseModel] | None = None
    open: bool = False


_DOCUMENT_ID: Json = {
    "name": "document_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 512},
}
_JOB_ID: Json = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_PREFER: Json = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`respond-async`: answer 202 with a job, however small the document is",
    "schema": {"type": "string"},
}
_FILE: Json = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "additionalProperties": False,
            "properties": {
                "file": {"type": "string", "format": "binary"},
                "document_id": {"type": "string", "minLength": 1, "maxLength": 512},
                "source_id": {"type": "string", "minLength": 1, "maxLength": 512},
                "topic_tags": {"type": "string", "description": "comma-separated"},
                "acl": {"type": "string", "description": "comma-separated; without it a document keeps its readers"},
            },
        }
    }
}
_SSE: Json = {
    "text/event-stream": {
        # no type: OpenAPI 3.1 has none for a stream of events, and tools differ in what they hold against it
        "schema": {
            "description": "with `stream`: events retrieval, token, citation, done, error; the data of each is JSON",
        }
    }
}
_READ = (400, 401, 408, 413, 415, 422, 500, 501, 502, 503, 504)
_GET = (401, 404, 500, 502, 503)
_DOOR = (400, 401, 403, 429, 503)
"""What any call may get before it is looked at: a key in its address, no or a wrong one, not the role, too much, and a
key that can't be looked up."""

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post", "/v1/search", "search", "Passages that match a query", "search",
        SearchRequest, schemas.SearchResponse, problems=_READ,
    ),
    Operation(
        "post", "/v1/answer", "answer", "An answer with citations", "search",
        AnswerRequest, schemas.AnswerResponse, problems=_READ, extra_answer=_SSE,
    ),
    Operation(
        "post", "/v1/documents", "addDocument", "Add or replace a document: a file, or ready text", "documents",
        schemas.DocumentRequest, schemas.DocumentResponse, 200, (*_READ, 409), (_PREFER,), _FILE,
        accepted=schemas.JobResponse,
    ),
    Operation(
        "get", "/v1/documents/{document_id}", "getDocument", "A document's passages", "documents",
        answer=schemas.StoredDocument, problems=_GET, parameters=(_DOCUMENT_ID,),
    ),
    Operation(
        "patch", "/v1/documents/{document_id}", "changeReaders", "Change who may read a document", "documents",
        schemas.ReadersRequest, schemas.ReadersResponse, problems=(*_READ, 404, 409), parameters=(_DOCUMENT_ID,),
    ),
    Operation(
        "delete", "/v1/documents/{document_id}", "deleteDocument", "Remove a document", "documents",
        status=204, problems=(*_GET, 409, 504), parameters=(_DOCUMENT_ID,),
    ),
    Operation(
        "get", "/v1/jobs/{job_id}", "getJob", "What became of a document that was answered 202", "documents",
        answer=schemas.JobResponse, problems=_GET, parameters=(_JOB_ID,),
    ),
    Operation(
        "post", "/v1/feedback", "feedback", "Say whether a result, or the answer, was relevant", "search",
        schemas.FeedbackRequest, schemas.FeedbackResponse, 202, (*_READ, 404),
    ),
    Operation(
        "post", "/v1/rerank", "rerank", "Your own documents by relevance, as Cohere's and Jina's", "models",
        schemas.RerankDocumentsRequest, schemas.RerankResponse, problems=(*_READ, 429),
    ),
    Operation(
        "post", "/v1/embeddings", "embeddings", "Vectors, as OpenAI's", "models",
        schemas.EmbeddingsRequest, schemas.EmbeddingsResponse, problems=_READ,
    ),
    Operation(
        "get", "/v1/models", "models", "The models that are served", "models",
        answer=schemas.ModelList, problems=(401, 500),
    ),
    Operation("get", "/healthz", "healthz", "Alive", "operations", answer=schemas.Health, open=True),
    Operation(
        "get", "/readyz", "readyz", "Ready, or what is wrong", "operations",
        answer=schemas.Readiness, open=True, problems=(),
    ),
    Operation("get", "/metrics", "metrics", "Prometheus text", "operations", problems=(401, 500)),
)  # fmt: skip


@cache
def document() -> Json:
    """The OpenAPI 3.1 document."""
    models: list[tuple[type[BaseModel], Any]] = [(schemas.Problem, "validation")]
    for operation in OPERATIONS:
        if operation.body is not None:
            models.append((operation.body, "validation"))
        if operation.accepted is not None:
            models.append((operation.accepted, "serialization"))
        if operation.answer is not None:
            models.append((operation.answer, "serialization"))
    references, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_REF)
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Braid",
            "version": __version__,
            "description": "Retrieval and answers over your own documents, on one OpenSearch cluster. "
            "Errors are RFC 9457 problem documents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(operation: Operation, references: Any) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": [] if operation.open else [{"key": []}, {}],
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        content = {"application/json": {"schema": references[operation.body, "validation"]}}
        described["requestBody"] = {"required": True, "content": content | (operation.extra_body or {})}
    good: Json = {"description": operation.summary}
    if operation.answer is not None:
        content = {"application/json": {"schema": references[operation.answer, "serialization"]}}
        good["content"] = content | (operation.extra_answer or {})
    elif operation.status == 200:
        good["content"] = {"text/plain": {"schema": {"type": "string"}}}
    responses: Json = {str(operation.status): good}
    if operation.accepted is not None:
        responses["202"] = {
            "description": "a job that stores it; `Location` is where it is shown",
            "headers": {"Location": {"schema": {"type": "string"}}},
            "content": {"application/json": {"schema": references[operation.accepted, "serialization"]}},
        }
    for status in sorted({*operation.problems, *(_DOOR[:1] if operation.open else _DOOR)}):
        responses[str(status)] = {
            "description": "a problem document",
            "content": {"application/problem+json": {"schema": references[schemas.Problem, "validation"]}},
        }
    if operation.path == "/readyz":
        responses["503"] = {"description": "not ready", "content": good["content"]}
    described["responses"] = responses
    return described


@blueprint.get("/openapi.json", endpoint="document")
def serve_document() -> Response:
    """The OpenAPI document."""
    return Response(orjson.dumps(document(), option=orjson.OPT_INDENT_2), content_type="application/json")


@blueprint.get("/docs", defaults={"name": "index.html"})
@blueprint.get("/docs/<path:name>")
def docs(name: str) -> Response:
    """The description for people, and the files that draw it."""
    folder = _PAGE if (_PAGE / name).is_file() and "/" not in name else _SWAGGER
    return send_from_directory(folder, name)
