"""``POST /v1/feedback``."""

from __future__ import annotations

from flask import Response

from app.api import schemas
from app.api.bodies import read_json, scope, services, write_json
from app.api.endpoint import ApiBlueprint, Endpoint
from app.gateway.audit import note
from app.gateway.roles import Role

blueprint = ApiBlueprint("feedback", "search")


@blueprint.declare(
    Endpoint(
        "POST",
        "/v1/feedback",
        schemas.FeedbackRequest,
        schemas.FeedbackResponse,
        202,
        role=Role.FEEDBACK,
        audit="feedback",
        problems=(404,),
    )
)
def feedback() -> Response:
    """Judge whether a result, or the answer, was relevant. Stored on response."""
    said = read_json(schemas.FeedbackRequest)
    note(query_id=said.query_id)
    given = services().labels.give(
        scope(), query_id=said.query_id, result_id=said.result_id, label=said.label, comment=said.comment
    )
    return write_json(
        schemas.FeedbackResponse(feedback_id=given.feedback_id, warnings=list(given.warnings)), status=202
    )
