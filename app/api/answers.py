"""``POST /v1/answer``, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from flask import Blueprint, Response, stream_with_context

from app import telemetry
from app.api import problems, schemas
from app.api.bodies import read_json, scope, services, write_json
from app.api.search import search_fields
from app.deadline import Deadline
from app.errors import BraidError
from app.search.request import AnswerRequest

blueprint = Blueprint("answers", __name__)


@blueprint.post("/v1/answer")
def answer() -> Response:
    """An answer from the passages that match, each claim cited."""
    request = read_json(AnswerRequest)
    raise NotImplementedError
