"""Builds the Flask application."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from app import telemetry
from app.api import answers, documents, feedback, models, openapi, ops, page, problems, rerank, search
from app.api.services import Services
from app.gateway.identity import check_exposure, identify

_log = logging.getLogger("braid.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN = frozenset({"ops.healthz", "ops.readyz", "page.index", "page.static_file", "openapi.docs", "openapi.document"})
"""What needs no key: probes, the page's files and the description of the API carry nobody's data."""

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(services: Services) -> Flask:
    """The WSGI application around `services`.

    Raises:
        ConfigurationError: the service would listen beyond loopback without a key.
    """
    check_exposure(services.settings)
    app = Flask("braid", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = services.settings.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = 1024 * 1024
    app.url_map.strict_slashes = False
    app.extensions["braid"] = services
    problems.install(app)

    @app.before_request
    def _enter() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        if request.endpoint not in _OPEN:
            g.scope = identify(
                services.settings,
                request.headers.get("Authorization"),
                request.headers.get("Host", ""),
                request.headers.get("Origin"),
            )

    @app.after_request
    def _leave(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.get("request_id", "")
        for name, value in _SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        route = request.url_rule.rule if request.url_rule else "unknown"
        started, method, status = g.get("started"), request.method, str(response.status_code)

        def _measure() -> None:
            seconds = time.perf_counter() - started
            telemetry.REQUEST.labels(route, status).observe(seconds)
            # neither queries nor document ids: what is asked is nobody's business
            _log.info("%s %s %s %.1f ms", method, route, status, seconds * 1000)

        if started is not None:
            response.call_on_close(_measure)
        return response

    for blueprint in (
        search.blueprint,
        answers.blueprint,
        documents.blueprint,
        feedback.blueprint,
        models.blueprint,
        rerank.blueprint,
        ops.blueprint,
        openapi.blueprint,
        page.blueprint,
    ):
        app.register_blueprint(blueprint)
    return app
