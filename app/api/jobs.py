"""``GET /v1/jobs/{job_id}``: what became of a document that was answered 202."""

from __future__ import annotations

from flask import Blueprint, Response, g

from app.api import schemas
from app.api.bodies import scope, services, write_json
from app.gateway.roles import Role

blueprint = Blueprint("jobs", __name__)


@blueprint.get("/v1/jobs/<job_id>")
def get(job_id: str) -> Response:
    """A job of the caller's, or for admins any of the tenant's; everybody else is told that there is none."""
    record = services().writes.jobs.show(job_id, scope(), every=g.caller.may(Role.ADMIN))
    return write_json(schemas.JobResponse.model_validate(record))
