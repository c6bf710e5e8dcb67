"""Roles: the names of what a caller may do. The role of an endpoint is in its declaration (`api.endpoint`)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from app.errors import InvalidInput


class Role(StrEnum):
    """Roles; `ADMIN` includes all others, and sees every document of its tenant."""

    SEARCH = "search"
    INGEST = "ingest"
    FEEDBACK = "feedback"
    ADMIN = "admin"
    METRICS = "metrics"


ALL_ROLES = frozenset(Role)


def parse_roles(names: Iterable[str]) -> frozenset[Role]:
    """Parse the names of roles.

    Raises:
        InvalidInput: a name is unknown; the message lists the known ones.
    """
    found = set()
    for name in names:
        if name not in ALL_ROLES:
            raise InvalidInput(f"role {name!r} is unknown; known roles: {', '.join(Role)}")
        found.add(Role(name))
    return frozenset(found)
