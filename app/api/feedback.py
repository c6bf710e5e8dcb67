"""``POST /v1/feedback``."""

from __future__ import annotations

from flask import Blueprint, Response

from app.api import schemas
from app.api.bodies import read_json, scope, services, write_json
from app.gateway.audit import note

blueprint = Blueprint("feedback", __name__)


@blueprint.post("/v1/feedback")
def feedback() -> Response:
    """Store what the caller says of a result, or of an answer as a whole; stored when the answer comes."""
    said = read_json(schemas.FeedbackRequest)
    note(query_id=said.query_id)
    given = services().labels.give(
        scope(), query_id=said.query_id, result_id=said.result_id, label=said.label, comment=said.comment
    )
    return write_json(
        schemas.FeedbackResponse(feedback_id=given.feedback_id, warnings=list(given.warnings)), status=202
    )
