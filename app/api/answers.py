"""``POST /v1/answer``, whole or as server-sent events."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from flask import Blueprint, Response, g, stream_with_context

from app import telemetry
from app.api import problems, schemas
from app.api.bodies import read_json, scope, services, write_json
from app.api.search import search_fields
from app.errors import BraidError
from app.generation.answer import Answer, Event
from app.generation.citations import Citation
from app.passage import Hit
from app.search.request import AnswerRequest

blueprint = Blueprint("answers", __name__)

_log = logging.getLogger("braid.api")


@blueprint.post("/v1/answer")
def answer() -> Response:
    """An answer from the passages that match, each claim cited."""
    request = read_json(AnswerRequest)
    started = time.monotonic()
    found = services().search.search(request, scope())
    fields = search_fields(request, found)
    context = found.hits[: request.context_size]
    if request.timeout_ms is None:
        left = services().settings.llm_timeout_s
    else:
        left = max(0.1, request.timeout_ms / 1000 - (time.monotonic() - started))
    if request.stream:
        body = stream_with_context(_events(request.query, context, fields, left))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(body, content_type="text/event-stream; charset=utf-8", headers=headers)
    made = services().generator.answer(request.query, context, timeout_s=left)
    return write_json(_whole(fields, made))


def _events(question: str, context: Sequence[Hit], fields: dict[str, Any], left: float) -> Iterator[bytes]:
    """The stream; whatever goes wrong in it is its last event, since the status has been sent."""
    yield _event("retrieval", schemas.SearchResponse(**fields).model_dump_json().encode())
    steps: Iterator[Event] = services().generator.stream(question, context, timeout_s=left)
    try:
        for step in steps:
            if step.kind == "token":
                yield _event("token", orjson.dumps({"text": step.text}))
            elif step.citation is not None:
                yield _event("citation", _citation(step.citation).model_dump_json().encode())
            elif step.answer is not None:
                yield _event("done", _whole(fields, step.answer).model_dump_json().encode())
    except BraidError as error:
        _log.warning("request %s: %s: %s", g.request_id, error.kind, error.detail)
        yield _event("error", orjson.dumps(problems.from_error(error)))


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _citation(citation: Citation) -> schemas.CitationItem:
    return schemas.CitationItem(
        marker=citation.marker, id=citation.id, document_id=citation.document_id, quote=citation.quote
    )


def _whole(fields: dict[str, Any], made: Answer) -> schemas.AnswerResponse:
    for stage, reason in made.degraded:
        telemetry.DEGRADED_REQUESTS.labels(stage, reason.partition(":")[0]).inc()
    degraded = [schemas.DegradedItem(stage=stage, reason=reason) for stage, reason in made.degraded]
    timings = {**fields["timings"], "gen_ms": made.gen_ms}
    timings["total_ms"] = round(fields["timings"]["total_ms"] + made.gen_ms, 3)
    return schemas.AnswerResponse(
        **{**fields, "timings": timings, "degraded": [*fields["degraded"], *degraded]},
        answer=made.text,
        citations=[_citation(citation) for citation in made.citations],
        abstained=made.abstained,
        model=made.model,
        usage=made.usage,
    )
