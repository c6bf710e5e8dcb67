"""The one place where a request's filter and the caller's scope become OpenSearch clauses.

Every leg, page, document look-up and count uses the list made here, so what a caller may not see is left out by the
same clauses everywhere. A request can only narrow its scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.access import PUBLIC

Clause = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """What the caller may see: one tenant and, unless `principals` is None (the operator), only what they may read."""

    tenant: str
    principals: frozenset[str] | None = None
    subject: str | None = None
    """Who asks (``key:ID``, ``user:SUB``; None: the operator): not for filters, but for logs, feedback and limits."""


@dataclass(frozen=True, slots=True)
class PassageFilter:
    """What the request asked to be left; empty fields leave everything in. Lists mean any-of, fields are and-ed."""

    source_id: tuple[str, ...] = ()
    source_type: tuple[str, ...] = ()
    document_id: tuple[str, ...] = ()
    topic_tags: tuple[str, ...] = ()
    timestamp: tuple[tuple[str, str], ...] = ()
    """Pairs of (gte|gt|lte|lt, ISO 8601 date or time)."""


EVERYTHING = PassageFilter()


def clauses(scope: Scope, wanted: PassageFilter = EVERYTHING) -> list[Clause]:
    """Filter clauses for ``bool.filter``, scope first; never empty."""
    found: list[Clause] = [{"term": {"tenant": scope.tenant}}]
    if scope.principals is not None:
        found.append({"terms": {"acl": sorted(scope.principals | {PUBLIC})}})
    for field in ("source_id", "source_type", "document_id", "topic_tags"):
        values: tuple[str, ...] = getattr(wanted, field)
        if values:
            found.append({"terms": {field: sorted(set(values))}})
    if wanted.timestamp:
        found.append({"range": {"timestamp": dict(wanted.timestamp)}})
    return found
