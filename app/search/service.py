"""A search's way: encode -> retrieve -> fuse. What went wrong on the way is part of the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app import telemetry
from app.config import Settings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, FieldProblem, InvalidInput, StoreError, StoreUnavailable
from app.passage import Hit
from app.search import fusion, plan
from app.search.readiness import ReadinessGate, require_ready
from app.search.request import SearchRequest
from app.search.terms import bounded_terms
from app.store import queries
from app.store.filters import Clause, Scope, clauses
from app.store.responses import Retrieved, read_response


class QueryEncoder(Protocol):
    """The part of the encoder that search needs."""

    def encode_query(self, text: str) -> npt.NDArray[np.float32]:
        """A normalised vector of shape (dimension,)."""
        ...


class SearchCluster(Protocol):
    """The part of the cluster that search needs."""

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


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`hits` is the page asked for, best first; `total` counts all matches; `timings` in ms, only stages that ran."""

    hits: tuple[Hit, ...]
    total: int
    timings: dict[str, float]
    degraded: tuple[Degradation, ...]
    plan: plan.Plan


@dataclass(slots=True)
class _Run:
    """What one request gathers on its way."""

    request: SearchRequest
    deadline: Deadline
    filters: list[Clause]
    depth: int
    timings: dict[str, float] = field(default_factory=dict)
    degraded: list[Degradation] = field(default_factory=list)

    def degrade(self, stage: str, reason: str) -> None:
        self.degraded.append(Degradation(stage, reason))

    @property
    def window(self) -> int:
        return self.request.from_ + self.request.size


class SearchService:
    """Answers searches. One instance a process; thread-safe."""

    def __init__(
        self, settings: Settings, cluster: SearchCluster, encoder: QueryEncoder, gate: ReadinessGate, executor: Executor
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._encoder = encoder
        self._gate = gate
        self._executor = executor

    def search(self, request: SearchRequest, scope: Scope, deadline: Deadline | None = None) -> SearchResult:
        """Run `request` within `scope`.

        Raises:
            InvalidInput: the page lies past the candidates.
            StoreNotReady, StoreUnavailable, StoreError, EncoderError (mode dense only), DeadlineExceeded.
        """
        started = time.perf_counter()
        budget = deadline or Deadline.after(request.timeout_ms or self._settings.timeout_ms)
        run = _Run(
            request=request,
            deadline=budget,
            filters=clauses(scope, request.filter.passage_filter()),
            depth=request.candidates or self._settings.candidates,
        )
        self._check_window(run)
        check = self._gate.begin()
        try:
            state = self._gate.state(check, budget.remaining_s("readiness"))
            chosen = plan.choose(request, shards=state.shards, native_rrf_across_shards=state.native_rrf_across_shards)
            vector = None if chosen.way == "lexical" else self._encode(run)
            if chosen.way != "lexical" and vector is None:
                chosen = plan.Plan("lexical", "the query could not be embedded")
            with _timed(run, "retrieve_ms"):
                hits, total = self._retrieve(run, chosen, vector)
            require_ready(check.result(budget.remaining_s("readiness")))
        except FutureTimeout as error:
            raise StoreUnavailable("OpenSearch did not answer within the time budget; is it overloaded?") from error
        self._note_rerank(run)
        run.timings["total_ms"] = _ms(started)
        for item in run.degraded:
            telemetry.DEGRADED_REQUESTS.labels(item.stage, item.reason.split(":")[0]).inc()
        page = hits[request.from_ : run.window]
        return SearchResult(tuple(page), total, run.timings, tuple(run.degraded), chosen)

    def _check_window(self, run: _Run) -> None:
        if run.window > run.depth:
            message = (
                f"from + size = {run.window} reaches past the {run.depth} candidates that are ranked; "
                f"ask for less, or for more `candidates` (at most 1000)"
            )
            raise InvalidInput(message, problems=[FieldProblem(("body", "size"), message)])

    def _encode(self, run: _Run) -> list[float] | None:
        """The query's vector; None (and degraded) when the encoder fails in a mode that can go on without it."""
        run.deadline.remaining_s("query_encode")
        try:
            with _timed(run, "query_encode_ms", telemetry.QUERY_ENCODE.observe), _counted("query_encode"):
                return [float(x) for x in self._encoder.encode_query(run.request.query)]
        except EncoderError:
            if run.request.mode == "dense":
                raise
            run.degrade("vector", "encoder-failed: only the lexical leg ran")
            return None

    def _retrieve(self, run: _Run, chosen: plan.Plan, vector: list[float] | None) -> tuple[list[Hit], int]:
        if chosen.way == "lexical" or vector is None:
            found = self._leg(run, "lexical", self._lexical_query(run), run.window)
            return [replace(hit, lexical=hit.score) for hit in found.hits], found.total
        if chosen.way == "dense":
            found = self._leg(run, "vector", self._vector_query(run, vector), run.window)
            return [replace(hit, dense=hit.score) for hit in found.hits], found.total
        with _timed(run, "hybrid_ms", telemetry.HYBRID_SEARCH.observe):
            if chosen.way == "native":
                return self._native(run, vector)
            return self._legs(run, vector)

    def _native(self, run: _Run, vector: list[float]) -> tuple[list[Hit], int]:
        text = self._text(run)
        query = queries.hybrid_query(text, vector, run.depth, run.filters)
        params: dict[str, Any] = {}
        inline: dict[str, Any] | None = None
        if run.request.fusion.method == "rrf":
            params["search_pipeline"] = queries.RRF_PIPELINE
        elif run.request.fusion.alpha is None or run.request.fusion.alpha == self._settings.alpha:
            params["search_pipeline"] = queries.LINEAR_PIPELINE
        else:
            inline = queries.linear_pipeline(run.request.fusion.alpha)
        # the first pages are read anew for each page and cut here: past its last hit the native `from` is an error
        found = self._send(run, "hybrid", query, run.window, params=params, inline_pipeline=inline)
        return [replace(hit, fused=hit.score) for hit in found.hits], found.total

    def _legs(self, run: _Run, vector: list[float]) -> tuple[list[Hit], int]:
        text = self._lexical_query(run)
        lexical_job = self._executor.submit(self._leg, run, "lexical", text, run.depth)
        vector_job = self._executor.submit(self._leg, run, "vector", self._vector_query(run, vector), run.depth, text)
        lexical, lexical_error = _outcome(lexical_job)
        dense, dense_error = _outcome(vector_job)
        if lexical is None and dense is None:
            raise lexical_error or dense_error or StoreError("both legs failed")
        for stage, error in (("lexical", lexical_error), ("vector", dense_error)):
            if error is not None:
                run.degrade(stage, f"{error.kind}: the other leg answered alone")
        left, right = (lexical.hits if lexical else ()), (dense.hits if dense else ())
        if run.request.fusion.method == "rrf":
            hits = fusion.fuse_rrf(left, right, self._settings.rrf_rank_constant)
        else:
            alpha = run.request.fusion.alpha
            hits = fusion.fuse_linear(left, right, self._settings.alpha if alpha is None else alpha)
        # as the native total: all that either leg matches, each once
        total = lexical.total if lexical else 0
        if dense is not None:
            total += dense.total if lexical is None or dense.outside is None else dense.outside
        return hits, total

    def _leg(
        self, run: _Run, stage: str, query: queries.Body, size: int, other: queries.Body | None = None
    ) -> Retrieved:
        histogram = telemetry.LEXICAL_SEARCH if stage == "lexical" else telemetry.VECTOR_SEARCH
        with _timed(run, f"{stage}_ms", histogram.observe):
            return self._send(run, stage, query, size, outside=other)

    def _send(
        self,
        run: _Run,
        stage: str,
        query: queries.Body,
        size: int,
        *,
        params: dict[str, Any] | None = None,
        inline_pipeline: dict[str, Any] | None = None,
        outside: queries.Body | None = None,
    ) -> Retrieved:
        left = run.deadline.remaining_s(stage)
        body = queries.search_body(query, size=size, timeout_ms=max(1, int(left * 1000)), outside=outside)
        if inline_pipeline is not None:
            body["search_pipeline"] = inline_pipeline
        with _counted(stage):
            try:
                raw = self._cluster.request(
                    "POST", f"/{queries.READ_ALIAS}/_search", params=params, body=body, timeout_s=left
                )
            except StoreUnavailable:
                run.deadline.remaining_s(stage)  # a spent budget is the caller's timeout, not an outage
                raise
            found = read_response(raw)
        took = run.timings.get("opensearch_took_ms", 0.0)
        run.timings["opensearch_took_ms"] = max(took, float(found.took_ms))
        if found.failed_shards:
            run.degrade(stage, f"partial: {found.failed_shards} of {found.shards} shards failed")
        if found.timed_out:
            run.degrade(stage, "timeout: OpenSearch returned what it had found by then")
        return found

    def _lexical_query(self, run: _Run) -> queries.Body:
        return queries.lexical_leg(self._text(run), run.filters)

    def _vector_query(self, run: _Run, vector: list[float]) -> queries.Body:
        return queries.vector_leg(vector, run.depth, run.filters)

    def _text(self, run: _Run) -> str:
        text, cut = bounded_terms(run.request.query)
        if cut:
            run.degrade("lexical", "query-cut: only its first 1000 words were matched")
        return text

    @staticmethod
    def _note_rerank(run: _Run) -> None:
        if run.request.rerank:
            run.degrade("rerank", "not-configured: no reranker is set up, results keep their fused order")


def _outcome(job: Future[Retrieved]) -> tuple[Retrieved | None, StoreError | DeadlineExceeded | None]:
    try:
        return job.result(), None
    except (StoreError, DeadlineExceeded) as error:
        return None, error


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


@contextmanager
def _timed(run: _Run, name: str, observe: Callable[[float], None] | None = None) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        run.timings[name] = _ms(started)
        if observe is not None:
            observe(time.perf_counter() - started)


@contextmanager
def _counted(stage: str) -> Iterator[None]:
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        telemetry.STAGE_REQUESTS.labels(stage, outcome).inc()
