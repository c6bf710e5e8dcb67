"""The web page and its files."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from flask import Response, send_file, send_from_directory
from jinja2 import Environment, FileSystemLoader

from app.api.endpoint import ApiBlueprint, Endpoint
from app.passage import FIELDS

blueprint = ApiBlueprint("page", None)

_WEB = Path(__file__).resolve().parent.parent / "web"


@cache
def _markup() -> bytes:
    """Return the page, with a form for all filterable fields."""
    templates = Environment(loader=FileSystemLoader(_WEB / "templates"), autoescape=True)
    filters = [(name, stored) for name, stored in FIELDS.items() if stored.filter]
    return templates.get_template("index.html").render(filters=filters).encode()


@blueprint.declare(Endpoint("GET", "/", role=None, audit=None))
def index() -> Response:
    """Return the page."""
    return send_file(BytesIO(_markup()), "text/html", etag=sha256(_markup()).hexdigest(), max_age=0)


@blueprint.declare(Endpoint("GET", "/static/<path:name>", role=None, audit=None))
def static_file(name: str) -> Response:
    """Return a file of the page."""
    return send_from_directory(_WEB / "static", name, max_age=0)
