"""Creation of the Flask application."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from app import telemetry
from app.api import (
    agents,
    answers,
    chat,
    documents,
    feedback,
    jobs,
    models,
    openapi,
    ops,
    problems,
    rerank,
    search,
    web_page,
)
from app.api.bodies import install_bodies
from app.api.endpoint import ApiBlueprint
from app.api.hygiene import install_hygiene
from app.api.services import Services
from app.gateway.audit import install_audit
from app.gateway.cors import install_cors
from app.gateway.identity import authorize, refuse_keys_in_url, require_authentication
from app.gateway.rate_limits import install_limits

_log = logging.getLogger("braid.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_BLUEPRINTS: tuple[ApiBlueprint, ...] = (
    search.blueprint,
    answers.blueprint,
    chat.blueprint,
    documents.blueprint,
    jobs.blueprint,
    feedback.blueprint,
    rerank.blueprint,
    models.blueprint,
    agents.blueprint,
    ops.blueprint,
    openapi.blueprint,
    web_page.blueprint,
)
ENDPOINTS = tuple(endpoint for blueprint in _BLUEPRINTS for endpoint in blueprint.endpoints)
"""All endpoints of the service, in the order of the API's description."""
_ROLES = {endpoint.name: endpoint.role for endpoint in ENDPOINTS}
_OPEN = frozenset(name for name, role in _ROLES.items() if role is None)


def create_app(services: Services) -> Flask:
    """Create the WSGI application around `services`.

    Raises:
        ConfigurationError: the service would listen beyond loopback without a key.
    """
    require_authentication(services.settings)
    app = Flask("braid", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = services.settings.limits.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = 1024 * 1024
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # "a//b" and "a/b" are two documents
    app.extensions["braid"] = services
    app.extensions["braid_endpoints"] = ENDPOINTS
    problems.install(app, ENDPOINTS)
    install_bodies(app)

    @app.before_request
    def _enter() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        refuse_keys_in_url(request.args.keys(), request.query_string.decode("latin-1"))
        # Flask answers OPTIONS from the routes alone, and browsers send it without credentials
        if request.endpoint not in _OPEN and request.method != "OPTIONS":
            g.caller = services.identity.identify(
                request.headers.get("Authorization"), request.headers.get("Host", ""), request.headers.get("Origin")
            )
            g.scope = g.caller.scope
            if request.endpoint is not None:
                authorize(g.caller, _ROLES.get(request.endpoint))

    @app.after_request
    def _leave(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.get("request_id", "")
        for name, value in _SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        route = request.url_rule.rule if request.url_rule else "unknown"
        started, method, status = g.get("started"), request.method, str(response.status_code)
        caller, request_id = g.get("caller"), response.headers["X-Request-ID"]
        who = (caller.scope.tenant, caller.scope.subject or caller.name) if caller is not None else ("-", "-")

        def _measure() -> None:
            seconds = time.perf_counter() - started
            telemetry.REQUEST.labels(route, status).observe(seconds)
            # neither queries nor document ids: content is private
            line = "%s %s %s %.1f ms request=%s tenant=%s caller=%s"
            _log.info(line, method, route, status, seconds * 1000, request_id, *who)

        if started is not None:
            response.call_on_close(_measure)
        return response

    # in this order: these use g.caller, which the function above sets
    install_hygiene(app)
    install_limits(app, services.settings, frozenset(item.name for item in ENDPOINTS if not item.counted))
    install_audit(app, services.settings.server, {item.name: item.audit for item in ENDPOINTS})
    install_cors(app, services.settings.server)

    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app
