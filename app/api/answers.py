"""``POST /v1/answer``, whole or as server-sent events."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from flask import Blueprint, Response, g, stream_with_context
from flask import request as http_request

from app import telemetry
from app.api import problems, schemas
from app.api.bodies import read_json, services, write_body
from app.api.search import Asked, log_query, logged, search_fields
from app.cache.entries import Json
from app.errors import BraidError, NotAuthenticated
from app.generation.answer import Answer, Event, Weighed
from app.generation.citations import Citation
from app.generation.context import Fetch
from app.passage import Hit
from app.search.plan import ANSWER_SEARCH
from app.search.request import AnswerRequest
from app.search.service import SearchResult
from app.serving.answers import Look, is_lasting, record_of
from app.store.filters import clauses
from app.store.neighbours import passages_at

blueprint = Blueprint("answers", __name__)

_log = logging.getLogger("braid.api")

_NEIGHBOURS_TIMEOUT_S = 1.0
"""For reading them: they are worth a few milliseconds, not a wait."""
_ADMITTED_S = 1.0
"""How often, at least, it is seen while a stream goes on whether its caller's key was revoked."""


@blueprint.post("/v1/answer")
def answer() -> Response:
    """An answer from the passages that match, each claim cited."""
    request = read_json(AnswerRequest)
    asked = Asked.now(request)
    look = asked.look("answer")
    if request.stream:
        return _stream(request, asked, look)
    record, timings = look.record, asked.timings
    try:
        if record is None:
            record, timings = _answered(request, asked, look, _find(request, asked, look))
    finally:
        look.finish(None)
    whole = record["answer"] | asked.volatile(look, timings)
    log_query(request, whole, record["log"], route="answer")
    return write_body(whole)


class Found(NamedTuple):
    """The passages, and how well they answer."""

    result: SearchResult
    weighed: Weighed


def _find(request: AnswerRequest, asked: Asked, look: Look) -> Found:
    """What an answer is made from.

    Both steps use the processor, so both belong to the request's turn; a language model that writes does not.
    """
    with asked.turn(ANSWER_SEARCH) as deadline:
        found = asked.search(look, deadline)
        return Found(found, services().generator.weigh(request.query, _context(request, found), _left(asked)))


def _answered(request: AnswerRequest, asked: Asked, look: Look, found: Found) -> tuple[Json, dict[str, float]]:
    """What is made of the passages, and in what time."""
    left = _time_for(asked)
    made = services().generator.answer(
        request.query,
        _context(request, found.result),
        timeout_s=left,
        nearby=_nearby(request, look, left),
        generate=asked.features.generation,
        weighed=found.weighed,
    )
    record = _record(request, look, found.result, made)
    if _is_lasting(found.result, made):
        look.finish(record)
    return record, _timings(found.result, made)


def _stream(request: AnswerRequest, asked: Asked, look: Look) -> Response:
    if look.record is not None:
        whole = look.record["answer"] | asked.volatile(look, asked.timings)
        events = _cached_events(request, whole, look.record["log"])
    else:
        try:
            found = _find(request, asked, look)  # what fails before the first passage has a status of its own
        except BaseException:
            look.finish(None)
            raise
        events = _events(request, asked, look, found.result, found.weighed)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    body = stream_with_context(events)
    response = Response(body, content_type="text/event-stream; charset=utf-8", headers=headers)
    response.call_on_close(lambda: look.finish(None))  # who goes away before the first byte never starts the stream
    return response


def _context(request: AnswerRequest, found: SearchResult) -> Sequence[Hit]:
    return found.hits[: request.context_size or services().settings.context_size]


def _time_for(asked: Asked) -> float:
    """Seconds for the language model: what is left of a budget that the request names, else the setting's."""
    if asked.request.timeout_ms is None:
        return services().settings.llm_timeout_s
    return max(0.1, _left(asked))


def _left(asked: Asked) -> float:
    """Seconds of the request's budget."""
    return asked.deadline.at - time.monotonic()


def _nearby(request: AnswerRequest, look: Look, left: float) -> Fetch:
    """Reads passages beside the results, through the same filter as the search."""
    cluster, filters = services().cluster, clauses(look.scope, request.filter.passage_filter())
    limit = min(_NEIGHBOURS_TIMEOUT_S, left / 2)
    return lambda places: passages_at(cluster, places, filters, timeout_s=limit)


def _is_lasting(found: SearchResult, made: Answer) -> bool:
    return is_lasting([*(item.reason for item in found.degraded), *(reason for _, reason in made.degraded)])


def _record(request: AnswerRequest, look: Look, found: SearchResult, made: Answer) -> Json:
    """The whole answer as it may be cached."""
    for stage, reason in made.degraded:
        telemetry.DEGRADED_REQUESTS.labels(stage, reason.partition(":")[0]).inc()
    fields = search_fields(request, found)
    degraded = [schemas.DegradedItem(stage=stage, reason=reason) for stage, reason in made.degraded]
    whole = schemas.AnswerResponse(
        **{**fields, "degraded": [*fields["degraded"], *degraded]},
        answer=made.text,
        citations=[_citation(citation) for citation in made.citations],
        abstained=made.abstained,
        model=made.model,
        usage=made.usage,
    )
    return record_of(look, whole.model_dump(mode="json"), log=logged(request, found, made.abstained))


def _timings(found: SearchResult, made: Answer) -> dict[str, float]:
    total = round(found.timings["total_ms"] + made.gen_ms, 3)
    return {**found.timings, "gen_ms": made.gen_ms, "total_ms": total}


def _events(request: AnswerRequest, asked: Asked, look: Look, found: SearchResult, weighed: Weighed) -> Iterator[bytes]:
    """The stream; whatever goes wrong in it is its last event, since the status has been sent."""
    own = asked.volatile(look, found.timings)
    searched = schemas.SearchResponse(**search_fields(request, found)).model_dump(mode="json") | own
    done = False
    try:
        yield _event("retrieval", orjson.dumps(searched))
        left = _time_for(asked)
        steps: Iterator[Event] = services().generator.stream(
            request.query,
            _context(request, found),
            timeout_s=left,
            nearby=_nearby(request, look, left),
            generate=asked.features.generation,
            weighed=weighed,
        )
        seen = time.monotonic()
        for step in steps:
            if time.monotonic() - seen >= _ADMITTED_S:
                seen = time.monotonic()
                if not services().identity.still_admitted(http_request.headers.get("Authorization")):
                    raise NotAuthenticated("the key was revoked, or has expired, while the answer was written")
            if step.kind == "token":
                yield _event("token", orjson.dumps({"text": step.text}))
            elif step.citation is not None:
                yield _event("citation", _citation(step.citation).model_dump_json().encode())
            elif step.answer is not None:
                record = _record(request, look, found, step.answer)
                if _is_lasting(found, step.answer):
                    look.finish(record)
                whole = record["answer"] | own | {"timings": _timings(found, step.answer)}
                # before the caller has it, who may judge it at once
                log_query(request, whole, record["log"], route="answer")
                done = True
                yield _event("done", orjson.dumps(whole))
    except BraidError as error:
        _log.warning("request %s: %s: %s", g.request_id, error.kind, error.detail)
        yield _event("error", orjson.dumps(problems.from_error(error)))
    finally:
        look.finish(None)
        if not done:  # it failed, or its reader went away
            log_query(request, searched, logged(request, found), route="answer")


def _cached_events(request: AnswerRequest, whole: dict[str, Any], log: dict[str, Any]) -> Iterator[bytes]:
    """The stream of an answer that was there already."""
    searched = {name: value for name, value in whole.items() if name in schemas.SearchResponse.model_fields}
    yield _event("retrieval", orjson.dumps(searched))
    if whole["answer"]:
        yield _event("token", orjson.dumps({"text": whole["answer"]}))
    for citation in whole["citations"]:
        yield _event("citation", orjson.dumps(citation))
    log_query(request, whole, log, route="answer")
    yield _event("done", orjson.dumps(whole))


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
