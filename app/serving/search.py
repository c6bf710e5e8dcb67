"""Use case of a search: cache, turn, search, keep, log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.cache.codec import Json
from app.gateway.admission import Admission
from app.search.request import SearchRequest
from app.search.service import SearchResult, SearchService
from app.serving.answer_cache import AnswerCache
from app.serving.reads import ReadCall, ReadLog, log_fields
from app.store.filters import Scope

SearchRenderer = Callable[[SearchRequest, Scope, SearchResult], Json]
"""Renderer of a search's body: cacheable fields, and empty ones for those of a single call."""


@dataclass(frozen=True, slots=True)
class SearchUseCase:
    """Answers searches. Thread-safe."""

    cache: AnswerCache
    admission: Admission
    search: SearchService
    log: ReadLog
    render: SearchRenderer

    def run(self, call: ReadCall[SearchRequest]) -> Json:
        """Return the body of the answer: a cached one, or that of a search in this call's turn.

        Raises:
            Overloaded: no turn is free in time.
            BraidError: as `SearchService.search`.
        """
        with self.cache.open("search", call) as lookup:
            record, timings = lookup.record, call.timings
            if record is None:
                with self.admission.enter(call.deadline):
                    found = self.search.search(call.request, lookup.scope, call.deadline, call.features)
                record = lookup.keep(
                    self.render(call.request, call.scope, found),
                    found.versions,
                    [item.reason for item in found.degraded],
                    log_fields(call.request, found),
                )
                timings = found.timings
        body: Json = record["answer"] | lookup.fields | call.fields(timings)
        self.log.record(call, "search", body, record["log"])
        return body
