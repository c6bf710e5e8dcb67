"""What the log keeps of a query. Pure functions; nothing here knows of threads or of OpenSearch."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from app.config import Settings
from app.feedback.ids import made_at
from app.passage import Hit
from app.store.filters import Scope
from app.store.query_log import Entry

KEPT_RESULTS = 20
"""Results of a query that the log keeps, from the first that was shown."""

Route = Literal["search", "answer"]


def normalised(query: str) -> str:
    """The text by which two queries are the same: compatible forms, case and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def query_hash(settings: Settings, tenant: str, query: str) -> str:
    """What joins equal queries of one tenant, 64 hex digits.

    With the text in the log (``full``) it is a plain SHA-256. In ``hashed`` it is an HMAC under BRAID_QUERY_LOG_KEY:
    who reads the index but has not the key can't try out guesses. The two never agree, so what was logged with its
    text does not give away what was logged without.
    """
    message = f"{tenant}\0{normalised(query)}".encode("utf-8", "surrogatepass")
    if settings.query_log == "full" or settings.query_log_key is None:
        return hashlib.sha256(message).hexdigest()
    return hmac.new(settings.query_log_key.get_secret_value().encode(), message, hashlib.sha256).hexdigest()


def entry_of(
    settings: Settings,
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
    """What the log keeps of one query; never a passage's text.

    Args:
        settings: whether the text is kept.
        query_id: of `ids.new_query_id`; the month of the index follows from it.
        scope: the caller's; only the same one may give feedback.
        query: as it was asked.
        route: which call asked it.
        mode: of the request.
        fusion: ``linear`` or ``rrf``; None where one leg ran alone.
        alpha: the dense share that was used; None where there was none.
        total: passages that matched.
        results: those that were shown, as `logged_results` gives them.
        total_ms: milliseconds of the whole.
        degraded: the stages that were skipped or gave less.
        index_generation: of the caches; None where it is not known.
        abstained: of answers.

    Raises:
        ValueError: `query_id` is none of ours.
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
        "query": query if settings.query_log == "full" else None,
        "query_hash": query_hash(settings, scope.tenant, query),
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
    return Entry(query_id, when, _known(source))


def principals(scope: Scope) -> list[str] | None:
    """Who asks, as the log writes it; None for the operator.

    With the subject, so that two keys with the same groups are two callers, and a key that sees all is not the
    operator. Groups can't be named like a subject (`gateway.caller`).
    """
    if scope.principals is None and scope.subject is None:
        return None
    own = frozenset() if scope.subject is None else frozenset({scope.subject})
    return sorted((scope.principals or frozenset()) | own)


def logged_results(hits: Sequence[Hit], first_rank: int) -> list[dict[str, Any]]:
    """What the log keeps of the results: ids, ranks (the first one's is `first_rank`, from 1) and scores."""
    return [_result(rank, hit) for rank, hit in enumerate(hits[:KEPT_RESULTS], start=first_rank)]


def _result(rank: int, hit: Hit) -> dict[str, Any]:
    return _known(
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


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
