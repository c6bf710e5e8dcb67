"""The page that people use, and its files."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, send_from_directory

blueprint = Blueprint("page", __name__)

_STATIC = Path(__file__).resolve().parent.parent / "web" / "static"


@blueprint.get("/")
def index() -> Response:
    """The page."""
    return send_from_directory(_STATIC, "index.html", max_age=0)


@blueprint.get("/static/<path:name>")
def static_file(name: str) -> Response:
    """A file of the page."""
    return send_from_directory(_STATIC, name, max_age=0)
