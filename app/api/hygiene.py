"""Rules for every request and response, whatever the endpoint."""

from __future__ import annotations

from flask import Flask, Response, request

from app.errors import UnsupportedMedia

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def install_hygiene(app: Flask) -> None:
    """Reject compressed bodies (a small one could become huge), and keep responses out of shared caches."""

    @app.before_request
    def _plain_bodies() -> None:
        if request.method not in _WITH_BODY:
            return
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise UnsupportedMedia("Content-Encoding is not supported: send the body uncompressed")

    @app.after_request
    def _uncached(response: Response) -> Response:
        if request.path.startswith(("/v1/", "/v2/")):
            response.headers["Cache-Control"] = "no-store"
        return response
