"""Error responses: every error of the server becomes an RFC 9457 problem document."""

from __future__ import annotations

import json
import logging
import math

from flask import Flask, Response
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from reranker.errors import DeadlinePassed, InferenceError, Overloaded, RerankerError, TextTooLong

_log = logging.getLogger("reranker.http")
_SHOWN = 120
_BRANCHES = frozenset({"str", "dict[str,any]"})


class InvalidInput(RerankerError):
    """The request's content is invalid."""


class MalformedRequest(RerankerError):
    """The body is not JSON."""


class UnsupportedMedia(RerankerError):
    """The body is not declared as JSON."""


class NotAuthenticated(RerankerError):
    """The key is missing or wrong."""


_KINDS: dict[type[RerankerError], tuple[int, str, str]] = {
    InvalidInput: (422, "invalid-input", "Invalid input"),
    TextTooLong: (422, "text-too-long", "Text too long"),
    MalformedRequest: (400, "malformed-request", "Malformed request"),
    UnsupportedMedia: (415, "unsupported-media-type", "Unsupported media type"),
    NotAuthenticated: (401, "not-authenticated", "Not authenticated"),
    Overloaded: (429, "overloaded", "Overloaded"),
    DeadlinePassed: (504, "deadline-exceeded", "The time budget ran out"),
    InferenceError: (503, "inference-error", "The model failed"),
}


def from_validation(error: ValidationError) -> RerankerError:
    """Return Pydantic's first finding, with its place and value, as one of our errors."""
    found = error.errors(include_url=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return MalformedRequest(f"the body is not valid JSON: {first['msg']}")
    # the names of a union's branches are internal
    where = ".".join(str(part) for part in first["loc"] if part not in _BRANCHES)
    message = first["msg"].removeprefix("Value error, ")
    if first["loc"] and first["loc"][-1] in _BRANCHES:
        message = 'expected a string, or an object such as {"text": a string}'
    if first["type"] != "missing":
        message += f" (got {shorten(first['input'])})"
    more = len({item["loc"] for item in found}) - 1
    return InvalidInput(f"{where}: {message}" + (f" (and {more} more)" if more else ""))


def shorten(value: object) -> str:
    """Return the truncated repr of a value for an error message."""
    # the repr of a large list would itself be large
    if isinstance(value, list | dict) and len(value) > 20:
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def respond(status: int, kind: str, title: str, detail: str) -> Response:
    """Return a problem document as a response."""
    # `message` is where Cohere's clients look
    body = {
        "type": f"urn:braid:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "message": detail,
    }
    response = Response(json.dumps(body, ensure_ascii=False), status=status, content_type="application/problem+json")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="braid-reranker"'
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response


def install(app: Flask) -> None:
    """Register the handlers."""

    @app.errorhandler(RerankerError)
    def _ours(error: RerankerError) -> Response:
        status, kind, title = _KINDS.get(type(error), (500, "internal-error", "Internal error"))
        if status >= 500:
            _log.warning("%s: %s", kind, error.detail)
        response = respond(status, kind, title, error.detail)
        if isinstance(error, Overloaded):
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        return response

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status = error.code or 500
        details = {
            404: "unknown path: use POST /v1/rerank, /v2/rerank or /rerank; GET /healthz, /readyz, /metrics, /info",
            405: "this path does not support that method",
            413: f"the body is larger than {app.config['MAX_CONTENT_LENGTH']} bytes (BRAID_RERANKER_MAX_BODY_BYTES): "
            f"send fewer or shorter documents",
        }
        detail = details.get(status, error.description or error.name)
        response = respond(status, error.name.lower().replace(" ", "-"), error.name, detail)
        if status == 405 and (allowed := getattr(error, "valid_methods", None)):
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response

    @app.errorhandler(500)
    def _crash(error: Exception) -> Response:
        return respond(500, "internal-error", "Internal error", "a bug in the reranker; see its log")
