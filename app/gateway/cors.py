"""CORS: other sites' pages may call the service from a browser only if they are listed."""

from __future__ import annotations

import re

from flask import Flask
from flask_cors import CORS

from app.config.service import ServerSettings
from app.errors import ConfigurationError
from app.gateway.rate_limits import LIMIT_HEADERS

_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
_ANSWERS = ("X-Request-ID", "Retry-After", *LIMIT_HEADERS)


def allowed_origins(server: ServerSettings) -> frozenset[str]:
    """Return the origins of ``BRAID_CORS_ORIGINS``, in lower case as browsers send them.

    Raises:
        ConfigurationError: an entry is not scheme://host or scheme://host:port; ``*`` and ``null`` are none.
    """
    found = set()
    for part in (server.cors_origins or "").split(","):
        origin = part.strip()
        if not origin:
            continue
        if not _ORIGIN.fullmatch(origin.lower()):
            raise ConfigurationError(
                f"BRAID_CORS_ORIGINS: {origin!r} is not an origin: write https://host or https://host:port, without a "
                "path and without wildcards, several separated by commas"
            )
        found.add(origin.lower())
    return frozenset(found)


def install_cors(app: Flask, server: ServerSettings) -> None:
    """Send the CORS headers to browsers of the listed origins, under ``/v1/`` and ``/v2/`` only.

    Cookies are not used (callers send ``Authorization``), so credentials mode stays off.

    Raises:
        ConfigurationError: an entry is not an origin.
    """
    origins = allowed_origins(server)
    if not origins:
        return
    CORS(
        app,
        # complete and escaped: the library takes some texts for regular expressions, and matches prefixes
        origins=[re.compile(re.escape(origin) + r"\Z", re.IGNORECASE) for origin in sorted(origins)],
        resources=r"/v[12]/.*",
        methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
        expose_headers=list(_ANSWERS),
        supports_credentials=False,
        always_send=False,
        max_age=600,
    )
