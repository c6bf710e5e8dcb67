"""What a caller says of a query's results: found in the log, checked against it, and stored."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from app.config import Settings
from app.errors import FieldProblem, InvalidInput, NotFound, SwitchedOff
from app.feedback.entries import KEPT_RESULTS, principals
from app.feedback.ids import made_at
from app.feedback.log import QueryLog
from app.store import query_log
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.query_log import Label

PATIENCE_S = 1.5
"""How long another worker may take to write the query: it lingers for half a second."""
_STEP_S = 0.1
_ON_ITS_WAY = timedelta(seconds=30)
"""How old a query may be (or, by another host's clock, how young) to be looked for more than once."""


@dataclass(frozen=True, slots=True)
class Given:
    """Feedback that is stored; `warnings` says what of it was not kept."""

    feedback_id: str
    warnings: tuple[str, ...] = ()


class LabelStore:
    """Takes feedback for the queries of the log. One a process, thread-safe."""

    def __init__(self, settings: Settings, cluster: Cluster, log: QueryLog) -> None:
        self._settings = settings
        self._cluster = cluster
        self._log = log

    def give(
        self, scope: Scope, *, query_id: str, result_id: str | None, label: Label, comment: str | None = None
    ) -> Given:
        """Store what `scope` says of a result, or of the query as a whole (`result_id` None); stored on return.

        The same caller's later word on the same result takes the place of the earlier one.

        Raises:
            SwitchedOff: no log is kept.
            NotFound: the scope has no such query; whether another has, callers can't tell.
            InvalidInput: the result was not among that query's.
            StoreError: OpenSearch is away or refused.
        """
        if not self._log.enabled:
            raise SwitchedOff(
                "feedback needs the query log, and this service keeps none (BRAID_QUERY_LOG=off): "
                "set BRAID_QUERY_LOG to full or hashed"
            )
        when, query = self._find(scope, query_id)
        result = self._result(query, result_id)
        kept = comment if self._settings.query_log == "full" and comment and comment.strip() else None
        source: dict[str, Any] = {
            "kind": "feedback",
            "query_id": query_id,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "tenant": scope.tenant,
            "principals": principals(scope),
            "query_hash": query["query_hash"],
            "result_id": result_id,
            "document_id": result.get("document_id"),
            "rank": result.get("rank"),
            "label": label,
            "comment": kept,
        }
        feedback_id = feedback_id_of(scope, query_id, result_id)
        known = {name: value for name, value in source.items() if value is not None}
        query_log.put_feedback(self._cluster, when, feedback_id, known)
        if comment and comment.strip() and kept is None:
            return Given(feedback_id, ("the comment was not kept: BRAID_QUERY_LOG=hashed keeps no text",))
        return Given(feedback_id)

    def _find(self, scope: Scope, query_id: str) -> tuple[datetime, dict[str, Any]]:
        """The entry of a query that the scope asked; waits for one that may still be in a queue, ours or another's."""
        when = made_at(query_id)
        if when is not None:
            until = time.monotonic() + PATIENCE_S
            fresh = abs(datetime.now(UTC) - when) < _ON_ITS_WAY
            if fresh:
                self._log.flush(PATIENCE_S)
            while True:
                found = query_log.get_query(self._cluster, when, query_id)
                # somebody else's is looked for as long as one that is not there: the time must not tell them apart
                if found is not None and _asked_by(scope, found):
                    return when, found
                if not fresh or time.monotonic() >= until:
                    break
                time.sleep(_STEP_S)
        raise NotFound(
            f"there is no query {query_id!r}: send the `query_id` of an answer as it is; "
            f"queries are kept for {self._settings.query_log_days} days (BRAID_QUERY_LOG_DAYS)"
        )

    @staticmethod
    def _result(query: dict[str, Any], result_id: str | None) -> dict[str, Any]:
        if result_id is None:
            return {}
        for result in query["results"]:
            if result["id"] == result_id:
                found: dict[str, Any] = result
                return found
        message = (
            f"result_id {result_id!r} is not among the first {KEPT_RESULTS} results of query {query['query_id']!r}: "
            "send the `id` of one of them, or leave it out to judge the answer as a whole"
        )
        raise InvalidInput(message, problems=[FieldProblem(("body", "result_id"), message)])


def feedback_id_of(scope: Scope, query_id: str, result_id: str | None) -> str:
    """The id of what this caller says of this result, 64 hex digits; the same for the same three, never a query's."""
    key = orjson.dumps([query_id, result_id, scope.tenant, principals(scope)])
    return hashlib.sha256(key).hexdigest()


def _asked_by(scope: Scope, query: dict[str, Any]) -> bool:
    return (query.get("tenant"), query.get("principals")) == (scope.tenant, principals(scope))
