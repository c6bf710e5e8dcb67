"""JSON bodies: reading, validation, and writing of responses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from io import BufferedRandom
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar, cast

import orjson
from flask import Flask, Request, Response, current_app, g, request
from pydantic import BaseModel, ValidationError

from app.api.problems import from_validation
from app.api.services import Services
from app.deadline import Deadline
from app.errors import PayloadTooLarge, UnsupportedMedia
from app.gateway.arrival import ARRIVED
from app.search.request import SearchRequest
from app.serving.reads import ReadCall
from app.serving.spool import SpooledFile
from app.serving.writes import owner
from app.store.filters import Scope

Model = TypeVar("Model", bound=BaseModel)
Query = TypeVar("Query", bound=SearchRequest)

_SMALL_BODY = 64 * 1024
"""Bytes below which bodies are not counted: the number of threads limits them."""


class PacedStream:
    """A body whose reader works in turn with the readers of other bodies, and rests after each piece of work.

    Splitting a multipart body needs the interpreter that searches need, too: eight concurrent readers made searches ten
    times slower. A reader that rests three times as long as it works leaves them most of it.
    """

    _REST = 3.0

    def __init__(self, stream: IO[bytes], turn: threading.Lock) -> None:
        self._stream = stream
        self._turn = turn
        self._since: float | None = None

    def read(self, size: int = -1) -> bytes:
        """Read from the stream; the turn is held from the return to the next call, not while waiting for the client."""
        self.close()
        data = self._stream.read(size)
        if data:
            self._turn.acquire()
            self._since = time.perf_counter()
        return data

    def close(self) -> None:
        """Release the turn, if this reader has it."""
        if self._since is not None:
            time.sleep((time.perf_counter() - self._since) * self._REST)
            self._since = None
            self._turn.release()


class UploadRequest(Request):
    """A request whose files go directly to the spool, never into memory."""

    _turn = threading.Lock()

    def _get_stream_for_parsing(self) -> IO[bytes]:
        stream = PacedStream(super()._get_stream_for_parsing(), self._turn)
        at_end(stream.close)
        return cast(IO[bytes], stream)

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> BufferedRandom:
        # the suffix distinguishes Markdown from plain text; the rest of the name never reaches the file system
        suffix = PurePosixPath((filename or "").replace("\\", "/")).suffix[:12].lower()
        file = services().writes.new_file(suffix if suffix[1:].isalnum() else "")
        at_end(file.release)
        g.setdefault("spooled", {})[str(file.path)] = file
        return file.path.open("x+b")


def install_bodies(app: Flask) -> None:
    """Release what a request holds at its end, whatever its outcome."""
    app.request_class = UploadRequest

    @app.teardown_request
    def _release(_error: BaseException | None) -> None:
        for release in g.pop("releases", []):
            release()


def at_end(release: Callable[[], None]) -> None:
    """Call `release` at the end of this request."""
    g.setdefault("releases", []).append(release)


def cancel_at_end(release: Callable[[], None]) -> None:
    """Cancel `at_end`: another owner releases it now."""
    g.releases.remove(release)


def services() -> Services:
    """Return the services of this process."""
    return cast(Services, current_app.extensions["braid"])


def scope() -> Scope:
    """Return the scope of this request's caller."""
    return cast(Scope, g.scope)


def read_json(model: type[Model]) -> Model:
    """Read the body as a `model`. Raises as `read_body` and `parse`."""
    return parse(model, read_body())


def read_call(model: type[Query]) -> ReadCall[Query]:
    """Read the search or question of this request. Raises as `read_json`."""
    return as_call(read_json(model))


def as_call(query: Query) -> ReadCall[Query]:
    """Return a search or question as a call of this request's caller."""
    return ReadCall(query, scope(), services().flags.features(scope()), deadline(query.timeout_ms))


def deadline(timeout_ms: int | None = None) -> Deadline:
    """Return the deadline of this request; None: the default budget."""
    # if a proxy reports the arrival, the time until a thread took the request counts
    arrived = request.environ.get(ARRIVED)
    return Deadline.after(timeout_ms or services().settings.search.timeout_ms, arrived)


def read_body(limit: int | None = None, setting: str = "BRAID_MAX_BODY_BYTES") -> bytes:
    """Read the body of a JSON request.

    Args:
        limit: maximum bytes; None: the limit of this service.
        setting: setting of the limit, for the error.

    Raises:
        UnsupportedMedia: not application/json (which also keeps simple cross-site forms out).
        PayloadTooLarge: the body exceeds the limit.
        Overloaded: there is currently no room for it in memory.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMedia(
            f"Content-Type {request.mimetype!r} is not supported: send JSON as `Content-Type: application/json`"
        )
    limit = min(limit or current_app.config["MAX_CONTENT_LENGTH"], current_app.config["MAX_CONTENT_LENGTH"])
    too_large = PayloadTooLarge(f"the body is larger than {limit} bytes ({setting})")
    if (request.content_length or 0) > limit:
        raise too_large
    length = limit if request.content_length is None else request.content_length
    if length > _SMALL_BODY:
        at_end(services().writes.body_bytes.take(owner(scope()), length).release)
    request.max_content_length = limit
    # Werkzeug silently truncates a body of unknown length at the limit, so check for more
    body = request.get_data(cache=False)
    if len(body) >= limit and request.environ["wsgi.input"].read(1):
        raise too_large
    return body


def parse(model: type[Model], body: bytes, where: str = "body") -> Model:
    """Parse a body, or the part of a request that `where` names, as a `model`.

    Raises:
        MalformedRequest: the body is not JSON.
        InvalidInput: with the place and the value of each problem.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error, where) from error


def spooled(stream: object) -> SpooledFile:
    """Return the spooled file behind an uploaded file's stream; it is removed with the request."""
    found: SpooledFile = g.spooled[getattr(stream, "name", None)]
    return found


def spool(body: bytes) -> SpooledFile:
    """Write a body to a file of the spool, removed with the request. Raises Overloaded."""
    writes = services().writes
    file = writes.new_file()
    file.holds.append(writes.hold_disk(scope(), len(body)))
    at_end(file.release)
    file.path.write_bytes(body)
    return file


def write_json(body: BaseModel, status: int = 200, *, only_set: bool = False) -> Response:
    """Return a response model as JSON; with `only_set` only the fields that were set."""
    text = body.model_dump_json(by_alias=True, exclude_unset=only_set)
    return Response(text, status=status, content_type="application/json")


def write_body(body: dict[str, Any], status: int = 200) -> Response:
    """Return a response model that is already plain data as JSON."""
    return Response(orjson.dumps(body), status=status, content_type="application/json")
