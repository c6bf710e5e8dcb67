"""``POST /v1/chat/completions``, compatible with OpenAI: an answer from the documents, whole or as chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
from flask import Response, g, request
from pydantic import ValidationError

from app.api import chat_schemas, problems
from app.api.answers import respond_with_events
from app.api.bodies import as_call, read_json, services, write_json
from app.api.chat_rendering import ChatRenderer
from app.api.endpoint import ApiBlueprint, Endpoint
from app.api.presence import caller_has_left, is_admitted
from app.conversation import Conversation
from app.errors import BraidError, CallerLeft, FieldProblem, InvalidInput, NotFound
from app.gateway.audit import note_read
from app.gateway.roles import Role
from app.search.request import AnswerRequest
from app.serving.answer import AnswerStream

blueprint = ApiBlueprint("chat", "search")

_log = logging.getLogger("braid.api")
_SOURCES = ("none", "list")


@blueprint.declare(
    Endpoint(
        "POST",
        "/v1/chat/completions",
        chat_schemas.ChatRequest,
        chat_schemas.ChatCompletion,
        role=Role.SEARCH,
        audit="chat",
        sheds=True,
        problems=(404,),
        events="with `stream`: chunks as OpenAI's, then [DONE]",
        imitates="openai",
    )
)
def chat() -> Response:
    """Answer the last question of a conversation from the documents, compatible with OpenAI."""
    asked = read_json(chat_schemas.ChatRequest)
    settings = services().settings.server
    if settings.model_named(asked.model) != chat_schemas.MODEL:
        message = f"model {asked.model!r} does not answer here: use {chat_schemas.MODEL!r}, or name an alias of it"
        raise NotFound(message, problems=[FieldProblem(("body", "model"), message)])
    options = dict(asked.braid or {})
    sources = options.pop("sources", settings.chat_sources)
    if sources not in _SOURCES:
        message = f"body.braid.sources: must be one of {', '.join(_SOURCES)} (got {problems.shorten(sources)})"
        raise InvalidInput(message, problems=[FieldProblem(("body", "braid", "sources"), message)])
    call = as_call(_question(asked, options))
    counts = asked.stream_options is not None and asked.stream_options.include_usage
    renderer = ChatRenderer(asked.model, request.url_root, sources == "list", counts)
    if call.request.stream:
        stream = services().answer.stream(call, is_admitted, caller_has_left())
        return respond_with_events(stream, _encode(stream, renderer))
    body = services().answer.run(call, caller_has_left())
    note_read(body)
    return write_json(renderer.whole(body))


def _question(asked: chat_schemas.ChatRequest, options: dict[str, Any]) -> AnswerRequest:
    """Return the same question to ``/v1/answer``. Raises InvalidInput."""
    try:
        Conversation.model_validate({"messages": asked.messages})
    except ValidationError as error:
        raise problems.from_validation(error) from error
    if misplaced := sorted({"query", "messages", "stream"} & options.keys()):
        message = f"body.braid.{misplaced[0]}: is told by OpenAI's own fields: omit it"
        raise InvalidInput(message, problems=[FieldProblem(("body", "braid", misplaced[0]), message)])
    body = {**options, "messages": asked.messages, "stream": bool(asked.stream)}
    try:
        # as JSON: strict models take lists and dates from it that they would not take from objects
        return AnswerRequest.model_validate_json(orjson.dumps(body))
    except ValidationError as error:
        raise problems.from_validation(error, "body", "braid") from error


def _encode(stream: AnswerStream, renderer: ChatRenderer) -> Iterator[bytes]:
    """Yield the stream as chunks; an error is its last event, since the status has been sent."""
    with closing(stream):
        try:
            yield renderer.first()
            for event in stream:
                if event.name == "retrieval":
                    note_read(event.data)
                elif event.name == "token":
                    yield renderer.piece(event.data["text"])
                elif event.name == "done":
                    yield from renderer.end(event.data)
        except CallerLeft:
            return
        except BraidError as error:
            _log.warning("request %s: %s: %s", g.request_id, error.kind, error.detail)
            yield b"data: " + orjson.dumps(problems.from_error(error)) + b"\n\n"
