"""Feedback on a query's results: validated against the log and stored."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from app.config.service import QueryLogSettings
from app.errors import FeatureDisabled, FieldProblem, InvalidInput, NotFound
from app.feedback.entries import KEPT_RESULTS, principals
from app.feedback.ids import made_at
from app.feedback.log import QueryLog
from app.store import query_log
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.query_log import Label

PATIENCE_S = 1.5
"""Seconds that another worker may take to write the query; it batches for half a second."""
_STEP_S = 0.1
_ON_ITS_WAY = timedelta(seconds=30)
"""Maximum age of a query (or difference between clocks) for looking it up more than once."""


@dataclass(frozen=True, slots=True)
class FeedbackReceipt:
    """Stored feedback; `warnings` names the parts that were not stored."""

    feedback_id: str
    warnings: tuple[str, ...] = ()


class LabelStore:
    """Stores feedback on the queries of the log. One instance per process; thread-safe."""

    def __init__(self, settings: QueryLogSettings, cluster: Cluster, log: QueryLog) -> None:
        self._settings = settings
        self._cluster = cluster
        self._log = log

    def give(
        self, scope: Scope, *, query_id: str, result_id: str | None, label: Label, comment: str | None = None
    ) -> FeedbackReceipt:
        """Store the caller's feedback on a result, or on the whole query (`result_id` None); stored on return.

        Later feedback of the same caller on the same result replaces the earlier one.

        Raises:
            FeatureDisabled: the query log is disabled.
            NotFound: the scope has no such query (the same for a query of another scope).
            InvalidInput: the result was not among that query's.
            StoreError: OpenSearch is unavailable or rejected the request.
        """
        if not self._log.enabled:
            raise FeatureDisabled(
                "feedback needs the query log, which is disabled (BRAID_QUERY_LOG=off): "
                "set BRAID_QUERY_LOG to full or hashed"
            )
        when, query = self._find(scope, query_id)
        result = self._result(query, result_id)
        kept = comment if self._settings.mode == "full" and comment and comment.strip() else None
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
            return FeedbackReceipt(feedback_id, ("the comment was not kept: BRAID_QUERY_LOG=hashed keeps no text",))
        return FeedbackReceipt(feedback_id)

    def _find(self, scope: Scope, query_id: str) -> tuple[datetime, dict[str, Any]]:
        """Return a query of the scope from the log; wait for one that may still be in this or
        another worker's queue.
        """
        when = made_at(query_id)
        if when is not None:
            until = time.monotonic() + PATIENCE_S
            fresh = abs(datetime.now(UTC) - when) < _ON_ITS_WAY
            if fresh:
                self._log.flush(PATIENCE_S)
            while True:
                found = query_log.get_query(self._cluster, when, query_id)
                # another caller's query takes as long as a missing one, so that the time does not distinguish them
                if found is not None and _asked_by(scope, found):
                    return when, found
                if not fresh or time.monotonic() >= until:
                    break
                time.sleep(_STEP_S)
        raise NotFound(
            f"there is no query {query_id!r}: send the `query_id` of an answer unchanged; "
            f"queries are kept for {self._settings.days} days (BRAID_QUERY_LOG_DAYS)"
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
            "send the `id` of one of them, or omit it to judge the whole answer"
        )
        raise InvalidInput(message, problems=[FieldProblem(("body", "result_id"), message)])


def feedback_id_of(scope: Scope, query_id: str, result_id: str | None) -> str:
    """Return the id of the caller's feedback on this result, 64 hex digits; equal for equal arguments, never a query
    id.
    """
    key = orjson.dumps([query_id, result_id, scope.tenant, principals(scope)])
    return hashlib.sha256(key).hexdigest()


def _asked_by(scope: Scope, query: dict[str, Any]) -> bool:
    return (query.get("tenant"), query.get("principals")) == (scope.tenant, principals(scope))
