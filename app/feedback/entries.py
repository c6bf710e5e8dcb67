"""Entries of the query log, made by pure functions without threads or OpenSearch."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from app.config.service import QueryLogSettings
from app.feedback.ids import made_at
from app.passage import Hit
from app.store.filters import Scope
from app.store.query_log import Entry

KEPT_RESULTS = 20
"""Number of results of a query that the log keeps, from the first that was shown."""

Route = Literal["search", "answer"]


def normalised(query: str) -> str:
    """Return the text for comparing queries: compatible forms, case and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def query_hash(query_log: QueryLogSettings, tenant: str, query: str) -> str:
    """Return the hash that joins equal queries of one tenant, 64 hex digits.

    If the log has the text (``full``) it is a plain SHA-256. In ``hashed`` it is an HMAC under BRAID_QUERY_LOG_KEY, so
    that a reader of the index without the key can't test guesses. The two never agree, so that entries with text do not
    reveal entries without.
    """
    message = f"{tenant}\0{normalised(query)}".encode("utf-8", "surrogatepass")
    if query_log.mode == "full" or query_log.key is None:
        return hashlib.sha256(message).hexdigest()
    return hmac.new(query_log.key.get_secret_value().encode(), message, hashlib.sha256).hexdigest()


def entry_of(
    query_log: QueryLogSettings,
    *,
    query_id: str,
    scope: Scope,
    query: str,
    route: Route,
    mode: str,
    fusion: str | None,
    alpha: float | None,
    total: int,
    results: Sequence[dict[str, Any]],
    total_ms: float,
    degraded: Sequence[str],
    index_generation: int | None,
    abstained: bool | None = None,
) -> Entry:
    """Return the log entry of one query; it never contains a passage's text.

    Args:
        query_log: determines whether the text is kept.
        query_id: id from `ids.new_query_id`; it determines the month of the index.
        scope: the caller's scope; only the same caller may give feedback.
        fusion: ``linear`` or ``rrf``; None if only one leg ran.
        alpha: the dense share, if any.
        results: the shown results, from `logged_results`.
        index_generation: generation of the caches; None if unknown.
        abstained: whether the answer abstained; None for searches.

    Raises:
        ValueError: `query_id` was not made by `ids.new_query_id`.
    """
    when = made_at(query_id)
    if when is None:
        raise ValueError(f"{query_id!r} was not made by new_query_id")
    source: dict[str, Any] = {
        "kind": "query",
        "query_id": query_id,
        "timestamp": when.isoformat(timespec="milliseconds"),
        "tenant": scope.tenant,
        "principals": principals(scope),
        "query": query if query_log.mode == "full" else None,
        "query_hash": query_hash(query_log, scope.tenant, query),
        "route": route,
        "mode": mode,
        "fusion": fusion,
        "alpha": alpha,
        "total": total,
        "results": list(results),
        "total_ms": total_ms,
        "degraded": list(dict.fromkeys(degraded)),
        "index_generation": index_generation,
        "abstained": abstained,
    }
    return Entry(query_id, when, _drop_nulls(source))


def principals(scope: Scope) -> list[str] | None:
    """Return the caller's identity for the log; None for the operator.

    It includes the subject, so that two keys with the same groups are two callers, and a key that sees everything is
    not the operator. Groups can't be named like a subject (`gateway.caller`).
    """
    if scope.principals is None and scope.subject is None:
        return None
    own = frozenset() if scope.subject is None else frozenset({scope.subject})
    return sorted((scope.principals or frozenset()) | own)


def logged_results(hits: Sequence[Hit], first_rank: int) -> list[dict[str, Any]]:
    """Return log entries of the results: ids, ranks (from `first_rank`, counted from 1) and scores."""
    return [_result(rank, hit) for rank, hit in enumerate(hits[:KEPT_RESULTS], start=first_rank)]


def _result(rank: int, hit: Hit) -> dict[str, Any]:
    return _drop_nulls(
        {
            "id": hit.id,
            "document_id": hit.document_id,
            "rank": rank,
            "score": hit.score,
            "lexical": hit.lexical,
            "dense": hit.dense,
            "fused": hit.fused,
        }
    )


def _drop_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
