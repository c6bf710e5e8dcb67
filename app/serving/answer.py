"""Use case of an answer, complete or as a stream of events: cache, turn, search, generation, keep, log."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol

from app import telemetry
from app.cache.codec import Json
from app.conversation import earlier_questions, unread_parts
from app.degradation import Degradation, Reason
from app.errors import CallerLeft, NotAuthenticated
from app.gateway.admission import Admission
from app.gateway.shares import Shares
from app.generation.answer import Answer, Event, WeighingResult, whole_answer
from app.generation.answer import Generator as AnswerGenerator
from app.generation.citations import Citation
from app.generation.context import Fetch
from app.generation.rewriting import StandaloneQuestion
from app.passage import Hit
from app.request_threads import step_aside
from app.search.plan import ANSWER_SEARCH
from app.search.request import AnswerRequest, SearchRequest
from app.search.service import SearchResult, SearchService
from app.serving.answer_cache import AnswerCache, CacheLookup
from app.serving.reads import ReadCall, ReadLog, log_fields
from app.serving.writes import owner
from app.store.client import Cluster
from app.store.filters import Scope, clauses
from app.store.head_check import HeadCheck
from app.store.neighbours import passages_at, shown_at

_NEIGHBOURS_TIMEOUT_S = 1.0
"""Maximum seconds to read neighbours: they are worth milliseconds, not a wait."""
_LOOK_S = 0.3
"""Seconds between two looks at the caller while the model writes. A revoked key is known a second later at most."""

Check = Callable[[], bool]


class AnswerRenderer(Protocol):
    """Renders bodies: cacheable fields, and empty ones for those of a single call."""

    def search(self, request: SearchRequest, scope: Scope, found: SearchResult) -> Json: ...

    def answer(self, request: SearchRequest, scope: Scope, found: SearchResult, made: Answer) -> Json: ...

    def citation(self, citation: Citation) -> Json: ...

    def search_part(self, body: Json) -> Json:
        """Return the fields of an answer's body that a search also has."""
        ...


@dataclass(frozen=True, slots=True)
class AnswerEvent:
    """One event of a stream: the results, a piece of text, a citation, or last the complete answer."""

    name: Literal["retrieval", "token", "citation", "done"]
    data: Json


Events = Generator[AnswerEvent, None, None]


class AnswerStream:
    """The events of one answer. Close it in any case, even unread: others may wait for the answer."""

    def __init__(self, events: Events, lookup: CacheLookup) -> None:
        self._events = events
        self._lookup = lookup

    def __iter__(self) -> Iterator[AnswerEvent]:
        """Iterate over the events. Raises BraidError if the answer breaks off."""
        return self._events

    def close(self) -> None:
        """End the stream, and the language model's work on it."""
        self._events.close()
        self._lookup.finish(None)


@dataclass(frozen=True, slots=True)
class AnswerUseCase:
    """Answers questions from matching passages. Thread-safe."""

    context_size: int
    """Passages that an answer is made from, where the request names no number."""
    generation_timeout_s: float
    """For the language model, whatever time the request names."""
    cluster: Cluster
    heads: HeadCheck
    cache: AnswerCache
    admission: Admission
    places: Shares
    """Places among the answers that the language model writes."""
    search: SearchService
    generator: AnswerGenerator
    log: ReadLog
    render: AnswerRenderer

    def run(self, call: ReadCall[AnswerRequest], has_left: Check | None = None) -> Json:
        """Return the body of the complete answer.

        Args:
            has_left: returns whether the caller closed its connection; called repeatedly while the model writes.

        Raises:
            CallerLeft: it did.
            Overloaded: no turn is free in time.
            BraidError: as `SearchService.search`.
        """
        call, standalone = self._complete(call, None, has_left)
        with self.cache.open("answer", call) as lookup:
            record, timings = lookup.record, call.timings
            if record is None:
                found, weighed = self._find(call, lookup)
                made = whole_answer(self._steps(call, lookup, found, weighed, None, has_left))
                record, timings = self._keep(call, lookup, found, made), _timings(found, made)
        body = _told(standalone, record["answer"] | lookup.fields | call.fields(timings))
        self.log.record(call, "answer", body, record["log"])
        return body

    def stream(self, call: ReadCall[AnswerRequest], is_admitted: Check, has_left: Check | None = None) -> AnswerStream:
        """Return the answer as events; the search runs before the return, so that its errors are raised here.

        Args:
            is_admitted: returns whether the caller still has access; called repeatedly during the stream.
            has_left: as that of `run`; the stream then raises CallerLeft.

        Raises:
            BraidError: as `run`.
        """
        call, standalone = self._complete(call, is_admitted, has_left)
        lookup = self.cache.look_up("answer", call)
        if lookup.record is not None:
            return AnswerStream(self._cached_events(call, standalone, lookup, lookup.record), lookup)
        try:
            found, weighed = self._find(call, lookup)
        except BaseException:
            lookup.finish(None)
            raise
        events = self._events(call, standalone, lookup, found, weighed, is_admitted, has_left)
        return AnswerStream(events, lookup)

    def _complete(
        self, call: ReadCall[AnswerRequest], is_admitted: Check | None, has_left: Check | None
    ) -> tuple[ReadCall[AnswerRequest], StandaloneQuestion]:
        """Return the call with a question that can be understood alone.

        Of a conversation nothing else is used: caches, search and prompt see that question only.
        """
        messages = call.request.messages
        if messages is None:
            return call, StandaloneQuestion(call.query)
        found = self.generator.complete(
            call.query,
            earlier_questions(messages),
            min(self._generation_s(call), _left_s(call)),  # the search has its time, too
            generate=call.features.generation,
            take_place=lambda: self.places.take(owner(call.scope)).release,
            look=lambda: _look(is_admitted, has_left),
        )
        if unread := unread_parts(messages):
            item = Degradation("question", f"{Reason.UNREAD}: parts of type {', '.join(unread)} were ignored")
            found = replace(found, degraded=(*found.degraded, item))
        for item in found.degraded:
            telemetry.DEGRADED_REQUESTS.labels(item.stage, item.reason.partition(":")[0]).inc()
        request = call.request.model_copy(update={"query": found.text, "messages": None})
        return replace(call, request=request), found

    def _find(self, call: ReadCall[AnswerRequest], lookup: CacheLookup) -> tuple[SearchResult, WeighingResult]:
        """Return the passages for the answer, and their relevance.

        Both steps use the processor, so both are part of the call's turn; writing by a language model is not.
        """
        deadline = call.deadline.part(ANSWER_SEARCH)
        with self.admission.enter(deadline):
            found = self.search.search(call.request, lookup.scope, deadline, call.features)
            return found, self.generator.weigh(call.query, self._context(call, found), _left_s(call))

    def _context(self, call: ReadCall[AnswerRequest], found: SearchResult) -> Sequence[Hit]:
        return found.hits[: call.request.context_size or self.context_size]

    def _generation_s(self, call: ReadCall[AnswerRequest]) -> float:
        """Return the seconds for the language model: those of the setting, or fewer by the request's own budget."""
        if call.request.timeout_ms is None:
            return self.generation_timeout_s
        return min(self.generation_timeout_s, max(0.1, _left_s(call)))

    def _steps(
        self,
        call: ReadCall[AnswerRequest],
        lookup: CacheLookup,
        found: SearchResult,
        weighed: WeighingResult,
        is_admitted: Check | None,
        has_left: Check | None,
    ) -> Iterator[Event]:
        """Yield the steps of the answer. Raises NotAuthenticated or CallerLeft if nobody may or will read more."""
        left = self._generation_s(call)
        steps = self.generator.stream(
            call.query,
            self._context(call, found),
            timeout_s=left,
            nearby=self._nearby(call, lookup, found, left),
            generate=call.features.generation,
            weighed=weighed,
            take_place=lambda: self._take_place(call),
        )
        looked = time.monotonic()
        with closing(steps):
            for step in steps:
                if time.monotonic() - looked >= _LOOK_S:
                    looked = time.monotonic()
                    _look(is_admitted, has_left)
                if step.kind != "waiting":
                    yield step

    def _take_place(self, call: ReadCall[AnswerRequest]) -> Callable[[], None]:
        """Take a place at the language model; from here on the request waits, so others get its thread's turn."""
        hold = self.places.take(owner(call.scope))
        step_aside()
        return hold.release

    def _nearby(self, call: ReadCall[AnswerRequest], lookup: CacheLookup, found: SearchResult, left_s: float) -> Fetch:
        """Return a function that reads neighbours of results, with the filter and the check of the search."""
        filters = clauses(lookup.scope, call.request.filter.passage_filter())
        limit = min(_NEIGHBOURS_TIMEOUT_S, left_s / 2)
        if not found.checked:
            return lambda places: passages_at(self.cluster, places, filters, timeout_s=limit)
        return lambda places: shown_at(self.cluster, self.heads, lookup.scope, places, filters, timeout_s=limit)

    def _keep(self, call: ReadCall[AnswerRequest], lookup: CacheLookup, found: SearchResult, made: Answer) -> Json:
        """Return the record of a computed answer, and cache it if allowed."""
        for stage, reason in made.degraded:
            telemetry.DEGRADED_REQUESTS.labels(stage, reason.partition(":")[0]).inc()
        return lookup.keep(
            self.render.answer(call.request, call.scope, found, made),
            found.versions,  # neighbours and citations are of the same versions
            [*(item.reason for item in found.degraded), *(reason for _, reason in made.degraded)],
            log_fields(call.request, found, made.abstained),
        )

    def _events(
        self,
        call: ReadCall[AnswerRequest],
        standalone: StandaloneQuestion,
        lookup: CacheLookup,
        found: SearchResult,
        weighed: WeighingResult,
        is_admitted: Check,
        has_left: Check | None,
    ) -> Events:
        own = lookup.fields | call.fields(found.timings)
        searched = _told(standalone, self.render.search(call.request, call.scope, found) | own)
        done = False
        try:
            yield AnswerEvent("retrieval", searched)
            for step in self._steps(call, lookup, found, weighed, is_admitted, has_left):
                if step.kind == "token":
                    yield AnswerEvent("token", {"text": step.text})
                elif step.citation is not None:
                    yield AnswerEvent("citation", self.render.citation(step.citation))
                elif step.answer is not None:
                    record = self._keep(call, lookup, found, step.answer)
                    body = _told(standalone, record["answer"] | own | {"timings": _timings(found, step.answer)})
                    # before the caller has it, who may judge it at once
                    self.log.record(call, "answer", body, record["log"])
                    done = True
                    yield AnswerEvent("done", body)
        finally:
            lookup.finish(None)
            if not done:  # it failed, or the reader left
                self.log.record(call, "answer", searched, log_fields(call.request, found))

    def _cached_events(
        self, call: ReadCall[AnswerRequest], standalone: StandaloneQuestion, lookup: CacheLookup, record: Json
    ) -> Events:
        """Yield the events of an answer from the cache."""
        body = _told(standalone, record["answer"] | lookup.fields | call.fields(call.timings))
        yield AnswerEvent("retrieval", _told(standalone, self.render.search_part(body), degraded=False))
        if body["answer"]:
            yield AnswerEvent("token", {"text": body["answer"]})
        for citation in body["citations"]:
            yield AnswerEvent("citation", citation)
        self.log.record(call, "answer", body, record["log"])
        yield AnswerEvent("done", body)


def _look(is_admitted: Check | None, has_left: Check | None) -> None:
    """Raise NotAuthenticated or CallerLeft if nobody may or will read the answer."""
    if is_admitted is not None and not is_admitted():
        raise NotAuthenticated("the key was revoked, or has expired, while the answer was written")
    if has_left is not None and has_left():
        raise CallerLeft("the caller closed its connection while the answer was written")


def _told(standalone: StandaloneQuestion, body: Json, *, degraded: bool = True) -> Json:
    """Return a body that tells how the question was completed; `degraded`: add what went wrong with that."""
    completed = standalone.text if standalone.completed_by is not None else None
    body = {**body, "query_used": completed, "query_completed_by": standalone.completed_by}
    if degraded and standalone.degraded:
        body["degraded"] = [*body["degraded"], *map(asdict, standalone.degraded)]
    return body


def _timings(found: SearchResult, made: Answer) -> dict[str, float]:
    total = round(found.timings["total_ms"] + made.gen_ms, 3)
    return {**found.timings, "gen_ms": made.gen_ms, "total_ms": total}


def _left_s(call: ReadCall[AnswerRequest]) -> float:
    """Return the seconds left of the call's budget."""
    return call.deadline.at - time.monotonic()
