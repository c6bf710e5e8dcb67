"""``GET /v1/jobs/{job_id}``: state of a document that was answered 202."""

from __future__ import annotations

from flask import Response, g

from app.api import schemas
from app.api.bodies import scope, services, write_json
from app.api.endpoint import ApiBlueprint, Endpoint
from app.gateway.roles import Role

blueprint = ApiBlueprint("jobs", "documents")


@blueprint.declare(Endpoint("GET", "/v1/jobs/<job_id>", answer=schemas.JobResponse, role=Role.INGEST, audit="read-job"))
def get_job(job_id: str) -> Response:
    """Return the state of a document that was answered 202.

    Admins see any job of their tenant, others their own; any other id is not found.
    """
    record = services().jobs.show(job_id, scope(), every=g.caller.has_role(Role.ADMIN))
    return write_json(schemas.JobResponse.model_validate(record))
