"""What a search asks of OpenSearch: the two legs, the native hybrid request, the passages of the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from app import telemetry
from app.deadline import Deadline
from app.errors import DeadlineExceeded, StoreError, StoreUnavailable
from app.features import ALL_ON, Features
from app.passage import Hit
from app.querytext import QueryText
from app.search.plan import STOP
from app.search.request import SearchRequest
from app.search.stage_times import StageTimes
from app.search.words import KnownWords
from app.store import queries
from app.store.filters import Clause
from app.store.head_check import Heads
from app.store.highlights import highlight_body
from app.store.responses import Leg, Retrieved, read_leg, read_outcome, read_response
from app.tuning import Tuning

GRACE_S = 0.05
"""How much longer than its deadline a job that ends by itself is waited for."""


class SearchCluster(Protocol):
    """The part of the cluster that search needs."""

    @property
    def read_alias(self) -> str:
        """What is searched."""
        ...

    def request(
        self, method: str, path: str, *, params: dict[str, Any] | None, body: Any, timeout_s: float | None
    ) -> Any:
        """Send one request; raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class Degradation:
    """A stage that was skipped or gave less than it should, and why (a short stable text, no internals)."""

    stage: str
    reason: str


@dataclass(slots=True)
class Run:
    """What one request gathers on its way."""

    request: SearchRequest
    query: QueryText
    tuning: Tuning
    deadline: Deadline
    filters: list[Clause]
    depth: int
    features: Features = ALL_ON
    partition: str | None = None
    """Names those with whom this request shares vectors and scores; None: with nobody."""
    legs: Deadline | None = None
    """Of the legs: the page is still to be made after them. None: all the time that is left."""
    timings: dict[str, float] = field(default_factory=dict)
    degraded: list[Degradation] = field(default_factory=list)
    corrected: tuple[str, ...] = ()
    vanished: set[str] = field(default_factory=set)
    """Candidates that were deleted before their passages were read."""
    heads: Heads | None = None
    """Of the documents whose passages are read to be shown; None: passages are shown as they are found."""
    reach: int = 0
    """Candidates that the native way is asked for; 0: those up to the end of the page."""
    passages: dict[str, Hit] = field(default_factory=dict)
    """Those that were read already."""
    tokens: dict[str, bytes] = field(default_factory=dict)
    """The packed token vectors of those that have them."""
    encoded: object | None = None
    """What the reranker needs of the inference that embedded the query."""
    same_copies: str | None = None
    """Names the copies of the shards to ask (OpenSearch's `preference`), so that all requests see the same writes."""

    def degrade(self, stage: str, reason: str) -> None:
        self.degraded.append(Degradation(stage, reason))

    def begin_again(self) -> None:
        """Forget what the last reading found, not the time that it took; all requests now ask the primary shards."""
        self.corrected, self.vanished = (), set()
        self.passages, self.tokens = {}, {}
        self.same_copies = "_primary"
        if self.heads is not None:
            self.heads.begin_again()

    @property
    def window(self) -> int:
        return self.request.from_ + self.request.size

    def deadline_of(self, stage: str) -> Deadline:
        """The moment at which a stage has to end."""
        return self.legs if self.legs is not None and stage != "fetch" else self.deadline


@dataclass(frozen=True, slots=True)
class Legs:
    """Both legs of a hybrid search, or the one that answered. `total`: all that either matches, each once."""

    lexical: Leg | None
    dense: Leg | None
    total: int


class Retrieval:
    """Sends what one search needs. Thread-safe; `Run` belongs to one search."""

    def __init__(self, cluster: SearchCluster, executor: Executor) -> None:
        self._cluster = cluster
        self._executor = executor
        self._words = KnownWords()
        self.times = StageTimes()
        """What the stages have lately taken."""

    def start_lexical(self, run: Run) -> Future[Leg]:
        """Begin the text leg; it runs while the query is embedded."""
        return self._executor.submit(self.lexical, run)

    def lexical(self, run: Run) -> Leg:
        """The text leg. Words that no passage holds are matched again with typing errors. Raises StoreError."""
        with timed(run, "lexical_ms", telemetry.LEXICAL_SEARCH.observe):
            strict = queries.lexical_leg(run.query, run.tuning.boosts, run.filters)
            checked = self._words.unknown(run.filters, run.query.checked)
            found = self._leg(run, "lexical", strict, queries.lexical_counts(run.query, checked))
            self._words.learn(run.filters, [word for word in checked if word not in found.missing])
            return self._corrected(run, found) if found.missing else found

    def dense(self, run: Run, vector: Sequence[float], *, count_outside: bool) -> Leg:
        """The vector leg. Raises StoreError."""
        counts = queries.outside_count(queries.lexical_match(run.query, run.filters)) if count_outside else {}
        with timed(run, "vector_ms", telemetry.VECTOR_SEARCH.observe), lasting(self.times, "vector"):
            return self._leg(run, "vector", queries.vector_leg(vector, run.depth, run.filters), counts)

    def both(self, run: Run, lexical_job: Future[Leg], vector: Sequence[float]) -> Legs:
        """Both legs; one that fails is noted, and the other answers alone.

        Raises:
            StoreError, DeadlineExceeded: of the lexical leg, when both failed.
        """
        dense, dense_error = _attempt(lambda: self.dense(run, vector, count_outside=True))
        lexical, lexical_error = _attempt(lambda: awaited(run, lexical_job))
        if lexical is None and dense is None:
            raise lexical_error or dense_error or StoreError("both legs failed")
        for stage, error in (("lexical", lexical_error), ("vector", dense_error)):
            if error is not None:
                run.degrade(stage, f"{error.kind}: the other leg answered alone")
        return Legs(lexical, dense, self._total(run, lexical, dense))

    def native(
        self, run: Run, vector: Sequence[float], *, pipeline: str | None, inline: queries.Body | None
    ) -> Retrieved:
        """One `hybrid` request through a pipeline of the cluster, or one that the body carries. Raises StoreError."""
        query = queries.hybrid_query(run.query, run.tuning.boosts, vector, run.depth, run.filters)
        # the first pages are read anew for each page and cut later: past its last hit the native `from` is an error
        body = queries.search_body(query, size=run.reach or run.window, timeout_ms=_left_ms(run, "hybrid"))
        if inline is not None:
            body["search_pipeline"] = inline
        params = {"search_pipeline": pipeline} if pipeline is not None else None
        return read_response(self._send(run, "hybrid", body, params))

    def read(self, run: Run, ids: Sequence[str], *, tokens: bool = False) -> None:
        """Have the passages of `ids` in `run.passages`; what is there is not read again. Raises StoreError."""
        missing = [key for key in ids if key not in run.passages]
        if missing:
            self.fetch(run, missing, tokens=tokens)

    def fetch(
        self, run: Run, ids: Sequence[str], *, vectors: bool = False, tokens: bool = False, highlight: bool = False
    ) -> Retrieved:
        """The passages of `ids`, in no order; one that was deleted meanwhile is missing. Raises StoreError."""
        marks = highlight_body(queries.lexical_match(run.query, [], run.corrected)) if highlight else None
        body = queries.fetch_body(
            ids, run.filters, timeout_ms=_left_ms(run, "fetch"), vectors=vectors, tokens=tokens, highlight=marks
        )
        noted = len(run.degraded)
        with timed(run, "fetch_ms"), lasting(self.times, "fetch"):
            found = read_response(self._send(run, "fetch", body))
        if len(run.degraded) == noted:  # what a shard did not return may well be there
            run.vanished |= set(ids) - {hit.id for hit in found.hits}
        run.passages |= {hit.id: hit for hit in found.hits}
        run.tokens |= found.tokens
        return found

    def _corrected(self, run: Run, strict: Leg) -> Leg:
        """The text leg with the missing words' neighbours in spelling; `strict` where there are none, or it fails."""
        fuzzy = queries.lexical_leg(run.query, run.tuning.boosts, run.filters, strict.missing)
        try:
            found = self._leg(run, "lexical", fuzzy, queries.corrected_counts(run.query, strict.missing))
        except (StoreError, DeadlineExceeded) as error:
            run.degrade("correction", f"{error.kind}: typing errors were not looked for")
            return strict
        run.corrected = tuple(word for word in strict.missing if word not in found.missing)
        return found if run.corrected else strict

    def _total(self, run: Run, lexical: Leg | None, dense: Leg | None) -> int:
        if dense is None:
            return lexical.total if lexical else 0
        if lexical is None:
            return dense.total
        outside = dense.outside or 0
        if run.corrected:  # the dense leg counted against the query as typed
            ids = [item.id for item in dense.candidates]
            matched = queries.lexical_match(run.query, run.filters, run.corrected)
            body = {
                "query": {"bool": {"filter": [{"ids": {"values": ids}}], "must_not": [matched]}},
                "size": 0,
                "track_total_hits": True,
            }
            try:
                outside = read_leg(self._send(run, "lexical", body)).total
            except (StoreError, DeadlineExceeded) as error:
                run.degrade("correction", f"{error.kind}: the total counts passages twice that both legs match")
        return lexical.total + outside

    def _leg(self, run: Run, stage: str, query: queries.Body, counts: dict[str, queries.Body]) -> Leg:
        body = queries.leg_body(query, size=run.depth, timeout_ms=_left_ms(run, stage), counts=counts)
        return read_leg(self._send(run, stage, body))

    def _send(
        self,
        run: Run,
        stage: str,
        body: queries.Body,
        params: dict[str, Any] | None = None,
    ) -> Any:
        deadline = run.deadline_of(stage)
        left = deadline.remaining_s(stage)
        if run.same_copies is not None:
            params = {**(params or {}), "preference": run.same_copies}
        with counted(stage):
            try:
                raw = self._cluster.request(
                    "POST", f"/{self._cluster.read_alias}/_search", params=params, body=body, timeout_s=left
                )
            except StoreUnavailable:
                deadline.remaining_s(stage)  # a spent budget is the caller's timeout, not an outage
                raise
            outcome = read_outcome(raw)
        took = run.timings.get("opensearch_took_ms", 0.0)
        # the legs run side by side, the passages are fetched after them
        run.timings["opensearch_took_ms"] = (
            took + outcome.took_ms if stage == "fetch" else max(took, float(outcome.took_ms))
        )
        if outcome.failed_shards:
            run.degrade(stage, f"partial: {outcome.failed_shards} of {outcome.shards} shards failed")
        if outcome.timed_out:
            run.degrade(stage, "timeout: OpenSearch returned what it had found by then")
        return raw


def _attempt(job: Callable[[], Leg]) -> tuple[Leg | None, StoreError | DeadlineExceeded | None]:
    try:
        return job(), None
    except (StoreError, DeadlineExceeded) as error:
        return None, error


def awaited(run: Run, job: Future[Leg]) -> Leg:
    """The lexical leg, as soon as it is there. Raises StoreError, DeadlineExceeded."""
    try:
        # its own requests end in time; this bounds the wait for a thread that could send them
        return job.result(run.deadline_of("lexical").remaining_s("lexical") + GRACE_S)
    except FutureTimeout as error:
        job.cancel()
        raise DeadlineExceeded(f"timeout_ms={run.deadline.budget_ms} was spent in the lexical leg") from error


def _left_ms(run: Run, stage: str) -> int:
    """What OpenSearch gets: a little less than we wait for, so that what it found by then still comes."""
    return max(1, int(run.deadline_of(stage).remaining_s(stage) * STOP * 1000))


def milliseconds(started: float) -> float:
    """Since `started` (of `time.perf_counter`)."""
    return round((time.perf_counter() - started) * 1000, 3)


@contextmanager
def timed(run: Run, name: str, observe: Callable[[float], None] | None = None) -> Iterator[None]:
    """Note how long the block took in `run.timings`, and tell a histogram."""
    started = time.perf_counter()
    try:
        yield
    finally:
        # passages may be fetched more than once
        run.timings[name] = round(run.timings.get(name, 0.0) + milliseconds(started), 3)
        if observe is not None:
            observe(time.perf_counter() - started)


@contextmanager
def counted(stage: str) -> Iterator[None]:
    """Count a stage that ran, and whether it failed."""
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        telemetry.STAGE_REQUESTS.labels(stage, outcome).inc()


@contextmanager
def lasting(times: StageTimes, stage: str) -> Iterator[None]:
    """Note how long the block took, if it ended well."""
    started = time.perf_counter()
    yield
    times.note(stage, time.perf_counter() - started)
