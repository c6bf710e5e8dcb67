"""Reads and validates JSON bodies; writes JSON answers."""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedRandom
from pathlib import PurePosixPath
from typing import Any, TypeVar, cast

import orjson
from flask import Flask, Request, Response, current_app, g, request
from pydantic import BaseModel, ValidationError

from app.api.problems import from_validation
from app.api.services import Services
from app.errors import PayloadTooLarge, UnsupportedMedia
from app.serving.spool import SpooledFile
from app.serving.writes import owner
from app.store.filters import Scope

Model = TypeVar("Model", bound=BaseModel)

_SMALL_BODY = 64 * 1024
"""Bytes; smaller bodies are not worth counting: threads bound how many there are."""


class UploadRequest(Request):
    """A request whose files go to the spool as they come, and never into memory."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> BufferedRandom:
        # the suffix helps to tell Markdown from plain text; the rest of the name never reaches the file system
        suffix = PurePosixPath((filename or "").replace("\\", "/")).suffix[:12].lower()
        file = services().writes.new_file(suffix if suffix[1:].isalnum() else "")
        at_end(file.release)
        g.setdefault("spooled", {})[str(file.path)] = file
        return file.path.open("x+b")


def install_bodies(app: Flask) -> None:
    """What a request holds is given back when it has been answered, whatever became of it."""
    app.request_class = UploadRequest

    @app.teardown_request
    def _release(_error: BaseException | None) -> None:
        for release in g.pop("releases", []):
            release()


def at_end(release: Callable[[], None]) -> None:
    """Have `release` called when this request has been answered."""
    g.setdefault("releases", []).append(release)


def not_at_end(release: Callable[[], None]) -> None:
    """Take back what `at_end` was told: somebody else has it now."""
    g.releases.remove(release)


def services() -> Services:
    """The services of this process."""
    return cast(Services, current_app.extensions["braid"])


def scope() -> Scope:
    """What the caller of this request may see."""
    return cast(Scope, g.scope)


def read_json(model: type[Model]) -> Model:
    """The body as a `model`. Raises as `read_body` and `parse`."""
    return parse(model, read_body())


def read_body(limit: int | None = None, setting: str = "BRAID_MAX_BODY_BYTES") -> bytes:
    """The body of a JSON request.

    Args:
        limit: bytes; None: the limit of this service.
        setting: that names the limit.

    Raises:
        UnsupportedMedia: not application/json (which also keeps simple cross-site forms out).
        PayloadTooLarge: over the limit.
        Overloaded: there is no room for it in memory now.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMedia(
            f"Content-Type {request.mimetype!r} is not read here: send JSON as `Content-Type: application/json`"
        )
    limit = min(limit or current_app.config["MAX_CONTENT_LENGTH"], current_app.config["MAX_CONTENT_LENGTH"])
    too_large = PayloadTooLarge(f"the body is larger than {limit} bytes ({setting})")
    if (request.content_length or 0) > limit:
        raise too_large
    length = limit if request.content_length is None else request.content_length
    if length > _SMALL_BODY:
        at_end(services().writes.body_bytes.take(owner(scope()), length).release)
    request.max_content_length = limit
    # Werkzeug cuts a body of unknown length at the limit without a word, so see whether there is more
    body = request.get_data(cache=False)
    if len(body) >= limit and request.environ["wsgi.input"].read(1):
        raise too_large
    return body


def parse(model: type[Model], body: bytes) -> Model:
    """A body as a `model`.

    Raises:
        MalformedRequest: not JSON.
        InvalidInput: with the place and the value of each thing that is wrong.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error


def spooled(stream: object) -> SpooledFile:
    """The file of the spool that an uploaded file's stream is; it is removed with the request."""
    found: SpooledFile = g.spooled[getattr(stream, "name", None)]
    return found


def spool(body: bytes) -> SpooledFile:
    """A body as a file of the spool, removed with the request. Raises Overloaded."""
    writes = services().writes
    file = writes.new_file()
    file.holds.append(writes.hold_disk(scope(), len(body)))
    at_end(file.release)
    file.path.write_bytes(body)
    return file


def write_json(body: BaseModel, status: int = 200, *, only_set: bool = False) -> Response:
    """A response model as JSON; with `only_set` without the fields that were not given a value."""
    text = body.model_dump_json(by_alias=True, exclude_unset=only_set)
    return Response(text, status=status, content_type="application/json")


def write_body(body: dict[str, Any], status: int = 200) -> Response:
    """A response model that was made plain already, as JSON."""
    return Response(orjson.dumps(body), status=status, content_type="application/json")
