"""Parts common to searches and answers: the call, the body's fields of a single call, the entry in the query log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from app.cache.codec import Json
from app.config.service import QueryLogSettings
from app.deadline import Deadline
from app.features import Features
from app.feedback.entries import Route, entry_of, logged_results
from app.feedback.ids import new_query_id
from app.feedback.log import QueryLog
from app.search.request import SearchRequest
from app.search.service import SearchResult
from app.store.filters import Scope

Request_co = TypeVar("Request_co", bound=SearchRequest, covariant=True)


@dataclass(frozen=True, slots=True)
class ReadCall(Generic[Request_co]):
    """A request, its caller's access, its flags, and its deadline, which counts from its arrival."""

    request: Request_co
    scope: Scope
    features: Features
    deadline: Deadline
    started: float = field(default_factory=time.perf_counter)

    @property
    def query(self) -> str:
        """The query as sent."""
        return self.request.query

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds until now, for an answer from the cache."""
        return {"total_ms": round((time.perf_counter() - self.started) * 1000, 3)}

    def fields(self, timings: Mapping[str, float]) -> Json:
        """Return the body's fields of this call alone, with a new query id; they are never cached."""
        return {
            "query_id": new_query_id(),
            "timings": dict(timings),
            "variants": dict(self.features.variants),
        }


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Writes searches and answers to the query log. Thread-safe."""

    settings: QueryLogSettings
    queue: QueryLog

    def record(self, call: ReadCall[SearchRequest], route: Route, body: Json, kept: Mapping[str, Any]) -> None:
        """Log a query and its results; the request does not wait for it.

        Args:
            body: body as sent to the caller.
            kept: result of `log_fields`.
        """
        if not self.queue.enabled:
            return
        self.queue.record(
            entry_of(
                self.settings,
                query_id=body["query_id"],
                scope=call.scope,
                query=call.query,
                route=route,
                mode=call.request.mode,
                total=body["total"],
                total_ms=body["timings"]["total_ms"],
                degraded=[item["stage"] for item in body["degraded"]],
                index_generation=body["index_generation"],
                **kept,
            )
        )


def log_fields(request: SearchRequest, found: SearchResult, abstained: bool | None = None) -> Json:
    """Return the fields of an answer for the query log besides its body; cached with it."""
    return {
        "fusion": request.fusion.method if found.plan.way in {"native", "legs"} else None,
        "alpha": found.weight.alpha if found.weight is not None else None,
        "results": logged_results(found.hits, request.from_ + 1),
        "abstained": abstained,
    }
