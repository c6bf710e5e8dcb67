"""``POST /mcp``: tools for agents, by the Model Context Protocol."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from typing import Any

import orjson
from flask import Response, g, request

from app.api.bodies import deadline, parse, read_body, scope, services
from app.api.endpoint import ApiBlueprint, Endpoint
from app.errors import BraidError, FeatureDisabled, Forbidden
from app.gateway.audit import note
from app.gateway.roles import Role
from app.mcp.agent import Agent
from app.mcp.tools import Tool

blueprint = ApiBlueprint("agents", None)

_log = logging.getLogger("braid.api")
_MAX_BODY_BYTES = 1024 * 1024
_REFUSED = -32000
"""JSON-RPC's code of a refusal that is the server's own."""


@blueprint.declare(Endpoint("POST", "/mcp", role=Role.SEARCH, audit="mcp", sheds=True))
def mcp() -> Response:
    """Answer one message of the Model Context Protocol."""
    _require_open()
    body = read_body(_MAX_BODY_BYTES, "of one message to /mcp")
    from app.mcp import http_door  # takes half a second and 18 MB

    agent = _agent()

    def call_tool(tool: Tool, arguments: dict[str, Any]) -> http_door.ToolOutcome:
        note(action=f"mcp.{tool.name}")
        try:
            given = parse(tool.arguments, json.dumps(arguments).encode(), "arguments")
            return http_door.ToolOutcome(tool.run(agent, given))
        except BraidError as error:
            note(outcome=error.kind)
            if error.status >= 500:
                _log.warning("request %s: %s: %s", g.request_id, error.kind, error.detail)
            return http_door.ToolOutcome(f"{error.title}: {error.detail}", is_error=True)

    made = http_door.exchange(request.headers.items(), body, call_tool)
    response = Response(made.body, status=made.status)
    for name, value in made.headers:
        response.headers[name] = value
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.after_request
def _name_error(response: Response) -> Response:
    """Add JSON-RPC's error to a problem document: clients of the protocol show nothing else."""
    if response.mimetype == "application/problem+json":
        problem = orjson.loads(response.get_data())
        error = {"code": _REFUSED, "message": f"{problem['title']}: {problem['detail']}"}
        response.set_data(orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error} | problem))
        response.mimetype = "application/json"
    return response


def _agent() -> Agent:
    parts = services()
    features = parts.flags.features(scope())
    return Agent(scope(), features, deadline(), parts.search, parts.answer, parts.browse)


def _require_open() -> None:
    """Raise FeatureDisabled if the door is closed, Forbidden if a page of another site sent the request."""
    if not services().settings.server.mcp:
        raise FeatureDisabled("BRAID_MCP=false closes /mcp: set it to true")
    if find_spec("mcp") is None:
        raise FeatureDisabled("/mcp needs the package `mcp`: pip install 'braid-rag[mcp]'")
    origin = request.headers.get("Origin")
    if not services().identity.is_known_origin(origin, request.headers.get("Host", "")):
        raise Forbidden(f"origin {origin!r} is neither this service nor in BRAID_CORS_ORIGINS")
