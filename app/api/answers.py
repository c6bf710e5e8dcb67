"""``POST /v1/answer``, complete or as server-sent events."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
from flask import Response, g, stream_with_context

from app.api import problems, schemas
from app.api.bodies import read_call, services, write_body
from app.api.endpoint import ApiBlueprint, Endpoint
from app.api.presence import caller_has_left, is_admitted
from app.errors import BraidError, CallerLeft
from app.gateway.audit import note_read
from app.gateway.roles import Role
from app.search.request import AnswerRequest
from app.serving.answer import AnswerStream

blueprint = ApiBlueprint("answers", "search")

_log = logging.getLogger("braid.api")


@blueprint.declare(
    Endpoint(
        "POST",
        "/v1/answer",
        AnswerRequest,
        schemas.AnswerResponse,
        role=Role.SEARCH,
        audit="answer",
        sheds=True,
        events="with `stream`: events retrieval, token, citation, done, error; the data of each is JSON",
    )
)
def answer() -> Response:
    """Answer a question with citations."""
    call = read_call(AnswerRequest)
    if call.request.stream:
        stream = services().answer.stream(call, is_admitted, caller_has_left())
        return respond_with_events(stream, _encode(stream))
    body = services().answer.run(call, caller_has_left())
    note_read(body)
    return write_body(body)


def respond_with_events(stream: AnswerStream, events: Iterator[bytes]) -> Response:
    """Return server-sent events, made from a stream, as a response."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    body = stream_with_context(events)
    response = Response(body, content_type="text/event-stream; charset=utf-8", headers=headers)
    response.call_on_close(stream.close)  # a client that leaves before the first byte never starts the generator
    return response


def _encode(stream: AnswerStream) -> Iterator[bytes]:
    """Yield the stream as server-sent events; an error is its last event, since the status has been sent."""
    with closing(stream):
        try:
            for event in stream:
                if event.name == "retrieval":
                    note_read(event.data)
                yield _event(event.name, event.data)
        except CallerLeft:
            return
        except BraidError as error:
            _log.warning("request %s: %s: %s", g.request_id, error.kind, error.detail)
            yield _event("error", problems.from_error(error))


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
