"""Filters: the only place where a request's filter and the caller's scope become OpenSearch clauses.

Every leg, page, document look-up and count uses the list made here, so that the same clauses hide inaccessible passages
everywhere. A request can only narrow its scope.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.access import PUBLIC, RESTRICTIONS
from app.passage import FIELDS

Clause = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """Access of a caller: one tenant and, unless `principals` is None (the operator), only readable documents."""

    tenant: str
    principals: frozenset[str] | None = None
    subject: str | None = None
    """Identity of the caller (``key:ID``, ``user:SUB``; None: the operator): for logs, feedback and limits, not for
    filters."""


class PassageFilter:
    """Filter of a request; empty fields restrict nothing. Lists mean any-of, fields are combined with "and".

    A range is pairs of (gte|gt|lte|lt, ISO 8601 date or time). A passage that matches any value of any `excluded` field
    is left out.
    """

    __slots__ = ("excluded", "wanted")

    def __init__(self, excluded: Mapping[str, Sequence[Any]] | None = None, /, **wanted: Sequence[Any]) -> None:
        """Create a filter from a sequence for each filterable field.

        Raises:
            ValueError: a field does not exist: a misspelt one would widen the search.
        """
        named = {*wanted, *(excluded or ())}
        if unknown := sorted(name for name in named if name not in FIELDS or FIELDS[name].filter is None):
            raise ValueError(f"passages can't be filtered by {', '.join(unknown)} (app.passage.Passage)")
        self.wanted = {name: tuple(values) for name, values in wanted.items()}
        self.excluded = {name: tuple(values) for name, values in (excluded or {}).items()}


EVERYTHING = PassageFilter()


def clauses(scope: Scope, wanted: PassageFilter = EVERYTHING) -> list[Clause]:
    """Return filter clauses for ``bool.filter``, scope first; never empty."""
    found: list[Clause] = [{"term": {"tenant": scope.tenant}}]
    if scope.principals is not None:
        have = sorted(scope.principals | {PUBLIC})
        found += [{"terms": {"acl": have}}, _unmet_restrictions(have)]
    # only added to the clauses of the scope, which no field of the table can change
    found += [_matching(name, values) for name, values in wanted.wanted.items() if values]
    if left_out := [_matching(name, values) for name, values in wanted.excluded.items() if values]:
        found.append({"bool": {"must_not": left_out}})
    return found


def _matching(name: str, values: Sequence[Any]) -> Clause:
    """Return the clause for passages with any of the values, or in the range."""
    if FIELDS[name].filter == "range":
        return {"range": {name: dict(values)}}
    return {"terms": {name: sorted({spelling for value in values for spelling in _spellings(value)})}}


def _spellings(value: Any) -> tuple[Any, ...]:
    """Return a value as it is, and decomposed, as an older Braid stored the names of macOS's files."""
    return (value,) if not isinstance(value, str) or value.isascii() else (value, unicodedata.normalize("NFD", value))


def _unmet_restrictions(have: list[str]) -> Clause:
    """Return the clause for passages with a restriction that contains none of `have`.

    It states what to exclude, because Lucene drops it in every segment without restrictions; "absent or satisfied"
    would test each passage.
    """
    unmet = [
        {"bool": {"filter": [{"exists": {"field": field}}], "must_not": [{"terms": {field: have}}]}}
        for field in RESTRICTIONS
    ]
    return {"bool": {"must_not": unmet}}
