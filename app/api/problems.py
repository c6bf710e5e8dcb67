"""Error responses: every error becomes an RFC 9457 problem document, in one place.

Errors of endpoints that imitate another API have its fields, too (`app.imitation`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import orjson
from flask import Flask, Response, current_app, g, has_request_context, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from app.api.endpoint import Endpoint
from app.errors import BraidError, DocumentRejected, FieldProblem, InvalidInput, MalformedRequest, Overloaded
from app.imitation import EVERY_API, Api, error_fields

_log = logging.getLogger("braid.api")
_SHOWN = 120


def problem(status: int, kind: str, title: str, detail: str, problems: tuple[FieldProblem, ...] = ()) -> dict[str, Any]:
    """Return the body of a problem document."""
    body: dict[str, Any] = {
        "type": f"urn:braid:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": g.get("request_id", ""),
    }
    if problems:
        body["errors"] = [{"loc": list(item.loc), "msg": item.msg} for item in problems]
    return body | error_fields(_imitated(), status, kind, detail, problems[0].loc if problems else ())


def _imitated() -> tuple[Api, ...]:
    """Return the APIs whose fields an error of the current request has."""
    if not has_request_context():
        return ()
    if request.endpoint is None:  # an unknown path, or a wrong method
        return EVERY_API
    found: dict[str, Api | None] = current_app.extensions["braid_imitated"]
    api = found.get(request.endpoint)
    return () if api is None else (api,)


def from_error(error: BraidError) -> dict[str, Any]:
    """Return a Braid error as a problem document's body."""
    body = problem(error.status, error.kind, error.title, error.detail, error.problems)
    if isinstance(error, DocumentRejected):
        body["reason"] = error.reason
    return body


def from_validation(error: ValidationError, *where: str) -> InvalidInput:
    """Convert Pydantic's findings, with the place and value of each; text that is not a JSON object is a 400.

    `where` is the place of what was validated; default: the body.
    """
    where = where or ("body",)
    found = error.errors(include_url=False)
    if any(item["type"] == "json_invalid" for item in found):
        return MalformedRequest(f"the {where[-1]} is not valid JSON: {found[0]['msg']}")
    # if an object was sent where a bool is also possible, the problem of the object is reported
    found = [item for item in found if item["loc"][-1:] != ("bool",) or not isinstance(item["input"], dict)]
    problems = []
    for item in found:
        # a union's branch names are internal
        loc = tuple(
            part
            for part in item["loc"]
            if part not in {"bool", "RerankRequest", "MmrRequest", "dict[str,any]", "constrained-str"}
        )
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown field"
        if item["type"] not in {"missing", "extra_forbidden"}:
            message = f"{message} (got {shorten(item['input'])})"
        problems.append(FieldProblem((*where, *loc), message))
    first = problems[0]
    detail = f"{'.'.join(str(part) for part in first.loc)}: {first.msg}"
    if len(problems) > 1:
        detail += f" (and {len(problems) - 1} more)"
    return InvalidInput(detail, problems=problems)


def shorten(value: object) -> str:
    """Return the truncated repr of a value for an error message."""
    # the repr of a large list would itself be large
    if isinstance(value, list | dict) and len(value) > 20:
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def respond(body: dict[str, Any]) -> Response:
    """Return a problem document as a response."""
    response = Response(orjson.dumps(body), status=body["status"], content_type="application/problem+json")
    if body["status"] == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="braid"'
    if body["status"] == 503:
        response.headers["Retry-After"] = "1"
    return response


def install(app: Flask, endpoints: Iterable[Endpoint] = ()) -> None:
    """Register the handlers; `endpoints` say which APIs they imitate."""
    app.extensions["braid_imitated"] = {endpoint.name: endpoint.imitates for endpoint in endpoints}

    @app.errorhandler(BraidError)
    def _braid(error: BraidError) -> Response:
        if error.status >= 500:
            _log.warning("request %s: %s: %s", g.get("request_id"), error.kind, error.detail)
        response = respond(from_error(error))
        if isinstance(error, Overloaded):
            response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return response

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status = error.code or 500
        title = error.name
        details = {
            404: "unknown path: see /docs for the existing ones; OpenAI's clients need an address that ends in /v1, "
            "Cohere's one without /v1 and /v2",
            405: "this path does not support that method: see /docs",
            413: f"the body is larger than {app.config['MAX_CONTENT_LENGTH']} bytes (BRAID_MAX_BODY_BYTES)",
        }
        response = respond(
            problem(status, title.lower().replace(" ", "-"), title, details.get(status, error.description or title))
        )
        if status == 405 and (allowed := getattr(error, "valid_methods", None)):
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response

    @app.errorhandler(500)
    def _crash(error: Exception) -> Response:
        # the traceback goes to the log; the caller gets the id to ask for
        return respond(problem(500, "internal-error", "Internal error", "a bug in the service; see its log"))
