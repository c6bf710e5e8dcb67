"""Description of the HTTP API: ``/openapi.json`` is generated from the declared endpoints; ``/docs`` displays it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import flask_swagger_ui
import orjson
from flask import Response, current_app, send_from_directory
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from app import __version__
from app.access import ACCESS_FIELDS
from app.api import schemas
from app.api.endpoint import ApiBlueprint, Endpoint, Json
from app.passage import FIELDS

blueprint = ApiBlueprint("openapi", None)

_PAGE = Path(__file__).resolve().parent / "docs_page"
_SWAGGER = Path(flask_swagger_ui.__file__).resolve().parent / "dist"
_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


def _form_field(name: str) -> Json:
    """Return the JSON Schema of a field of the form, in which lists are text."""
    if name in ACCESS_FIELDS:
        return {"type": "string", "description": "comma-separated; without it a document keeps its readers"}
    if FIELDS[name].many:
        return {"type": "string", "description": "comma-separated"}
    return TypeAdapter(FIELDS[name].value_type).json_schema()


UPLOAD_FORM: Json = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary"},
        **{name: _form_field(name) for name in schemas.UploadFields.model_fields},
    },
}
_PATH_PARAMETERS: dict[str, Json] = {
    "document_id": {"type": "string", "minLength": 1, "maxLength": 512},
    "model_id": {"type": "string", "minLength": 1, "maxLength": 512},
    "job_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_PREFER: Json = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`respond-async`: answer 202 with a job, however small the document is",
    "schema": {"type": "string"},
}
_OPEN_PROBLEMS = (400,)
"""Problem statuses of any endpoint: a key in the URL."""
_ROLE_PROBLEMS = (400, 401, 403, 429, 500, 503)
"""Problem statuses of an endpoint with a role, also for an invalid key, a missing role, the rate
limit, and look-ups."""
_BODY_PROBLEMS = (408, 413, 415, 422, 501, 502, 504)
"""Additional ones of an endpoint that reads a body."""
_PATH_PROBLEMS = (404, 502)
"""Additional ones of an endpoint whose path identifies a resource."""


@cache
def document(endpoints: tuple[Endpoint, ...]) -> Json:
    """Return the OpenAPI 3.1 document of the endpoints that have a tag."""
    described = [endpoint for endpoint in endpoints if endpoint.tag is not None]
    models: list[tuple[type[BaseModel], Any]] = [(schemas.Problem, "validation")]
    for endpoint in described:
        if endpoint.request is not None:
            models.append((endpoint.request, "validation"))
        models += [(model, "serialization") for model in (endpoint.accepted, endpoint.answer) if model is not None]
    references, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_REF)
    paths: Json = {}
    for endpoint in described:
        path = _PARAMETER.sub(r"{\1}", endpoint.rule)
        paths.setdefault(path, {})[endpoint.method.lower()] = _describe(endpoint, references)
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


def operation_id(endpoint: Endpoint) -> str:
    """Return the name of the view in camel case."""
    first, *others = endpoint.name.partition(".")[2].split("_")
    return first + "".join(map(str.title, others))


def _describe(endpoint: Endpoint, references: Any) -> Json:
    is_open = endpoint.role is None
    described: Json = {
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "security": [] if is_open else [{"key": []}, {}],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
        for name in _PARAMETER.findall(endpoint.rule)
    ]
    if endpoint.accepted is not None:
        parameters.append(_PREFER)
    if parameters:
        described["parameters"] = parameters
    problems = {*endpoint.problems, *(_OPEN_PROBLEMS if is_open else _ROLE_PROBLEMS)}
    if "<" in endpoint.rule:
        problems |= set(_PATH_PROBLEMS)
    if endpoint.request is not None:
        problems |= set(_BODY_PROBLEMS)
        content = {"application/json": {"schema": references[endpoint.request, "validation"]}}
        if endpoint.form is not None:
            content["multipart/form-data"] = {"schema": endpoint.form}
        described["requestBody"] = {"required": True, "content": content}
    good: Json = {"description": endpoint.summary}
    if endpoint.answer is not None:
        good["content"] = {"application/json": {"schema": references[endpoint.answer, "serialization"]}}
        if endpoint.events is not None:
            # no type: OpenAPI 3.1 has none for a stream of events, and tools differ in what they expect
            good["content"]["text/event-stream"] = {"schema": {"description": endpoint.events}}
    elif endpoint.status == 200:
        good["content"] = {"text/plain": {"schema": {"type": "string"}}}
    responses: Json = {str(endpoint.status): good}
    if endpoint.accepted is not None:
        responses["202"] = {
            "description": "a job that stores it; `Location` is its address",
            "headers": {"Location": {"schema": {"type": "string"}}},
            "content": {"application/json": {"schema": references[endpoint.accepted, "serialization"]}},
        }
    for status in sorted(problems):
        responses[str(status)] = {
            "description": "a problem document",
            "content": {"application/problem+json": {"schema": references[schemas.Problem, "validation"]}},
        }
    if endpoint.rule == "/readyz":
        responses["503"] = {"description": "not ready", "content": good["content"]}
    described["responses"] = responses
    return described


@blueprint.declare(Endpoint("GET", "/openapi.json", role=None, audit=None))
def serve_document() -> Response:
    """Return the OpenAPI document."""
    described = document(current_app.extensions["braid_endpoints"])
    return Response(orjson.dumps(described, option=orjson.OPT_INDENT_2), content_type="application/json")


@blueprint.get("/docs", defaults={"name": "index.html"})
@blueprint.declare(Endpoint("GET", "/docs/<path:name>", role=None, audit=None))
def docs(name: str) -> Response:
    """Return the page that displays the description, and its files."""
    folder = _PAGE if (_PAGE / name).is_file() and "/" not in name else _SWAGGER
    return send_from_directory(folder, name)
