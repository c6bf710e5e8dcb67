"""Reads and validates JSON bodies; writes JSON answers."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import orjson
from flask import Response, current_app, g, request
from pydantic import BaseModel, ValidationError

from app.api.problems import from_validation
from app.api.services import Services
from app.errors import PayloadTooLarge, UnsupportedMedia
from app.store.filters import Scope

Model = TypeVar("Model", bound=BaseModel)


def services() -> Services:
    """The services of this process."""
    return cast(Services, current_app.extensions["braid"])


def scope() -> Scope:
    """What the caller of this request may see."""
    return cast(Scope, g.scope)


def read_json(model: type[Model]) -> Model:
    """The body as a `model`.

    Raises:
        UnsupportedMedia: not application/json (which also keeps simple cross-site forms out).
        PayloadTooLarge: over the limit of this service.
        MalformedRequest: not JSON.
        InvalidInput: with the place and the value of each thing that is wrong.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMedia(
            f"Content-Type {request.mimetype!r} is not read here: send JSON as `Content-Type: application/json`"
        )
    try:
        return model.model_validate_json(_whole_body())
    except ValidationError as error:
        raise from_validation(error) from error


def _whole_body() -> bytes:
    """The body; Werkzeug cuts one of unknown length at the limit without a word, so see whether there is more."""
    body = request.get_data(cache=False)
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    if len(body) >= limit and request.environ["wsgi.input"].read(1):
        raise PayloadTooLarge(f"the body is larger than {limit} bytes (BRAID_MAX_BODY_BYTES)")
    return body


def write_json(body: BaseModel, status: int = 200, *, only_set: bool = False) -> Response:
    """A response model as JSON; with `only_set` without the fields that were not given a value."""
    text = body.model_dump_json(by_alias=True, exclude_unset=only_set)
    return Response(text, status=status, content_type="application/json")


def write_body(body: dict[str, Any], status: int = 200) -> Response:
    """A response model that was made plain already, as JSON."""
    return Response(orjson.dumps(body), status=status, content_type="application/json")
