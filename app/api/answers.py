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
from app.api.search import log_query, search_fields
from app.errors import BraidError
from app.generation.answer import Answer, Event
from app.generation.citations import Citation
from app.generation.context import Fetch
from app.passage import Hit
from app.search.request import AnswerRequest
from app.search.service import SearchResult
from app.store.filters import clauses
from app.store.neighbours import passages_at

blueprint = Blueprint("answers", __name__)

_log = logging.getLogger("braid.api")

_NEIGHBOURS_TIMEOUT_S = 1.0
"""For reading them: they are worth a few milliseconds, not a wait."""


@blueprint.post("/v1/answer")
def answer() -> Response:
    """An answer from the passages that match, each claim cited."""
    request = read_json(AnswerRequest)
    started = time.monotonic()
    found = services().search.search(request, scope())
    fields = search_fields(request, found)
    if request.timeout_ms is None:
        left = services().settings.llm_timeout_s
    else:
        left = max(0.1, request.timeout_ms / 1000 - (time.monotonic() - started))
    if request.stream:
        body = stream_with_context(_events(request, found, fields, left))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(body, content_type="text/event-stream; charset=utf-8", headers=headers)
    nearby = _nearby(request, left)
    made = services().generator.answer(request.query, _context(request, found), timeout_s=left, nearby=nearby)
    _log_answer(request, found, fields, made)
    return write_json(_whole(fields, made))


def _context(request: AnswerRequest, found: SearchResult) -> Sequence[Hit]:
    return found.hits[: request.context_size or services().settings.context_size]


def _nearby(request: AnswerRequest, left: float) -> Fetch:
    """Reads passages beside the results, through the same filter as the search."""
    cluster, filters = services().cluster, clauses(scope(), request.filter.passage_filter())
    limit = min(_NEIGHBOURS_TIMEOUT_S, left / 2)
    return lambda places: passages_at(cluster, places, filters, timeout_s=limit)


def _log_answer(request: AnswerRequest, found: SearchResult, fields: dict[str, Any], made: Answer | None) -> None:
    """`made` is None where the stream ended before its answer did."""
    if made is None:
        log_query(request, found, fields, route="answer")
        return
    degraded = [stage for stage, _ in made.degraded]
    log_query(request, found, fields, route="answer", gen_ms=made.gen_ms, degraded=degraded, abstained=made.abstained)


def _events(request: AnswerRequest, found: SearchResult, fields: dict[str, Any], left: float) -> Iterator[bytes]:
    """The stream; whatever goes wrong in it is its last event, since the status has been sent."""
    made: Answer | None = None
    try:
        yield _event("retrieval", schemas.SearchResponse(**fields).model_dump_json().encode())
        steps: Iterator[Event] = services().generator.stream(
            request.query, _context(request, found), timeout_s=left, nearby=_nearby(request, left)
        )
        for step in steps:
            if step.kind == "token":
                yield _event("token", orjson.dumps({"text": step.text}))
            elif step.citation is not None:
                yield _event("citation", _citation(step.citation).model_dump_json().encode())
            elif step.answer is not None:
                made = step.answer
                # before the caller has it, who may judge it at once
                _log_answer(request, found, fields, made)
                yield _event("done", _whole(fields, made).model_dump_json().encode())
    except BraidError as error:
        _log.warning("request %s: %s: %s", g.request_id, error.kind, error.detail)
        yield _event("error", orjson.dumps(problems.from_error(error)))
    finally:
        if made is None:  # it failed, or its reader went away
            _log_answer(request, found, fields, None)


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _citation(citation: Citation) -> schemas.CitationItem:
    return schemas.CitationItem(
        marker=citation.marker,
        id=citation.id,
        document_id=citation.document_id,
        page=citation.page,
        quote=citation.quote,
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
