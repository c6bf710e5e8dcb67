"""``POST /v1/search``."""

from __future__ import annotations

from flask import Response

from app.api import schemas
from app.api.bodies import read_call, services, write_body
from app.api.endpoint import ApiBlueprint, Endpoint
from app.gateway.audit import note_read
from app.gateway.roles import Role
from app.search.request import SearchRequest

blueprint = ApiBlueprint("search", "search")


@blueprint.declare(
    Endpoint("POST", "/v1/search", SearchRequest, schemas.SearchResponse, role=Role.SEARCH, audit="search", sheds=True)
)
def search() -> Response:
    """Find passages that match a query."""
    body = services().search.run(read_call(SearchRequest))
    note_read(body)
    return write_body(body)
