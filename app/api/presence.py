"""Looks after the caller of a request while its answer is written: still connected, still admitted."""

from __future__ import annotations

import select
from collections.abc import Callable

from flask import request

from app.api.bodies import services


def is_admitted() -> bool:
    """Return whether the credential of this request is still valid."""
    return services().identity.still_admitted(request.headers.get("Authorization"))


def caller_has_left() -> Callable[[], bool]:
    """Return a function that tells whether this request's caller has closed its connection, or its sending side.

    While the model is silent nothing is written, and no write could fail; so the connection itself is asked.
    """
    connection = request.environ.get("gunicorn.socket")
    if connection is None:  # not gunicorn: a test's client, which does not leave
        return lambda: False
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return lambda: bool(poll.poll(0))
