"""What a caller may do: the roles, and the one table of the role that each endpoint asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from app.errors import InvalidInput


class Role(StrEnum):
    """`ADMIN` is all the others, and sees every document of its tenant."""

    SEARCH = "search"
    INGEST = "ingest"
    FEEDBACK = "feedback"
    ADMIN = "admin"
    METRICS = "metrics"


ALL_ROLES = frozenset(Role)

OPEN_ENDPOINTS = frozenset(
    {"ops.healthz", "ops.readyz", "page.index", "page.static_file", "openapi.docs", "openapi.document"}
)
"""What needs no key: probes, the page's files and the description of the API carry nobody's data."""

ENDPOINT_ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "search.search": Role.SEARCH,
        "answers.answer": Role.SEARCH,
        "rerank.rerank": Role.SEARCH,
        "models.embeddings": Role.SEARCH,
        "models.models": Role.SEARCH,
        "documents.get": Role.SEARCH,
        "documents.add": Role.INGEST,
        "documents.change": Role.INGEST,
        "documents.delete": Role.INGEST,
        "jobs.get": Role.INGEST,
        "feedback.feedback": Role.FEEDBACK,
        "ops.metrics": Role.METRICS,
    }
)
"""The role that each endpoint asks for. One that is in neither table is refused for everybody but the operator."""


def parse_roles(names: Iterable[str]) -> frozenset[Role]:
    """The roles of these names.

    Raises:
        InvalidInput: an unknown name; the ones that there are.
    """
    found = set()
    for name in names:
        if name not in ALL_ROLES:
            raise InvalidInput(f"role {name!r} is unknown; there are {', '.join(Role)}")
        found.add(Role(name))
    return frozenset(found)
