"""Collection of both legs' results for every query of a set: searched once, fused afterwards in any number of ways.

The requests are those of the service (`app.search.retrieval`). The number of workers and optionally a rate limit the
load on the cluster. Each query's legs are appended to a file as they arrive, so that an interrupted run resumes. A
short outage of the cluster is waited out; a long one ends the run, however many queries remain.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from app.errors import (
    BraidError,
    DeadlineExceeded,
    Overloaded,
    RerankerUnavailable,
    StoreError,
    StoreUnavailable,
)
from app.evaluation.target import EvaluationTarget, evaluation_call, require_whole
from app.passage import Candidate
from app.querytext import QueryText, read_query
from app.search.fusion_stage import exact_matches
from app.search.request import MAX_QUERY_CHARACTERS
from app.search.retrieval import Retrieval
from app.search.trace import Trace
from app.store.client import Cluster
from app.store.languages import QueryFields, available, mappings_of
from app.store.score_check import lexical_factor
from app.tuning import Tuning

_TIMEOUT_MS = 30_000
_PATIENCE_S = 20.0
_PAUSE_S = 0.5
"""Seconds between two attempts to reach a service that is unavailable."""
Progress = Callable[[int], None]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Load:
    """Limits on the cluster's load: concurrent queries, and queries per second (None: no limit)."""

    workers: int = 2
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class QueryLegs:
    """Both legs of one query, best first, the bonus of exact matches, and the time of each leg (ms)."""

    query: QueryText
    lexical: tuple[Candidate, ...]
    dense: tuple[Candidate, ...]
    bonus: dict[str, float]
    lexical_ms: float
    dense_ms: float

    def cut(self, candidates: int) -> tuple[Sequence[Candidate], Sequence[Candidate]]:
        """Return both legs of a search with this many candidates; exact matches stay, however low they rank."""
        exact = [item for item in self.lexical[candidates:] if item.id in self.bonus]
        return [*self.lexical[:candidates], *exact], self.dense[:candidates]


@dataclass(frozen=True, slots=True)
class CollectedLegs:
    """Legs by query id, and the reasons of queries that failed or were answered in part."""

    legs: dict[str, QueryLegs]
    failed: dict[str, str]


@dataclass(slots=True)
class QueryRun(Generic[_Answer]):
    """A run over many queries: `work` answers one of them, with threads, a pace and a patience of their own.

    `patience_s` is the number of seconds that the cluster or the reranker may be unavailable. `found` has the answers
    by query id, `failed` the reasons.
    """

    load: Load
    patience_s: float
    progress: Progress
    found: dict[str, _Answer] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def go(
        self,
        query_ids: Sequence[str],
        cluster: Cluster,
        work: Callable[[Retrieval, str], _Answer],
        keep: Callable[[str, _Answer], None] = lambda query_id, answer: None,
    ) -> dict[str, _Answer]:
        """Answer all queries but those in `found`; return the answers, in the order of the queries.

        Raises:
            TargetUnavailable: the cluster or the reranker stayed unavailable.
        """
        stopped = threading.Event()
        pace, patience = RateLimiter(self.load.rate, stopped), RetryBudget(self.patience_s, stopped)
        # all requests of a query run in the query's thread, so the workers bound the load
        with ThreadPoolExecutor(self.load.workers, thread_name_prefix="evaluate") as workers:
            retrieval = Retrieval(cluster, workers)

            def one(query_id: str) -> _Answer:
                pace.wait()
                return patience.go(lambda: work(retrieval, query_id))

            jobs = {workers.submit(one, query_id): query_id for query_id in query_ids if query_id not in self.found}
            try:
                for job in as_completed(jobs):
                    query_id = jobs[job]
                    try:
                        self.found[query_id] = job.result()
                    except TargetUnavailable:
                        raise
                    except BraidError as error:
                        self.failed[query_id] = f"{error.kind}: {error.detail}"
                    else:
                        keep(query_id, self.found[query_id])
                    self.progress(1)
            except BaseException:
                stopped.set()
                workers.shutdown(wait=False, cancel_futures=True)
                raise
        return {query_id: self.found[query_id] for query_id in query_ids if query_id in self.found}


class RateLimiter:
    """Rate limiter: lets at most `rate` callers per second pass; nobody waits once `stopped` is set."""

    def __init__(self, rate: float | None, stopped: threading.Event | None = None) -> None:
        self._step = 1 / rate if rate else 0.0
        self._next = time.monotonic()
        self._stopped = stopped or threading.Event()
        self._lock = threading.Lock()

    def wait(self) -> None:
        if not self._step:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._step
        self._stopped.wait(max(0.0, turn - time.monotonic()))


class TargetUnavailable(BraidError):
    """The cluster or the reranker was unavailable for longer than the patience; the cause says which."""


class RetryBudget:
    """Retries while the cluster or the reranker is unavailable or full, for `seconds` in total
    since the last success.
    """

    def __init__(self, seconds: float, stopped: threading.Event) -> None:
        self._seconds = seconds
        self._stopped = stopped
        self._answered = time.monotonic()

    def go(self, search: Callable[[], _Answer]) -> _Answer:
        """Return the result of `search`. Raises TargetUnavailable, and other errors of `search`."""
        while True:
            if self._stopped.is_set():
                raise TargetUnavailable("stopped")
            try:
                found = search()
            except (StoreUnavailable, RerankerUnavailable, Overloaded, DeadlineExceeded) as error:
                if time.monotonic() - self._answered > self._seconds:
                    raise TargetUnavailable(error.detail) from error
                if isinstance(error, DeadlineExceeded):  # perhaps only this query is too expensive
                    raise
                self._stopped.wait(_PAUSE_S)
            else:
                self._answered = time.monotonic()
                return found


def collect(
    queries: Mapping[str, str],
    vectors: Mapping[str, npt.NDArray[np.float32]],
    where: EvaluationTarget,
    tuning: Tuning,
    *,
    depth: int,
    load: Load,
    dense_from: Mapping[str, QueryLegs] | None = None,
    kept_in: Path | None = None,
    patience_s: float = _PATIENCE_S,
    progress: Progress = lambda done: None,
) -> CollectedLegs:
    """Search all queries.

    Args:
        queries: id -> text; queries beyond the service's limit are cut, since it would reject them.
        vectors: id -> the query's vector.
        tuning: provides the boosts of the lexical leg.
        depth: candidates of each leg.
        dense_from: earlier legs whose dense side is reused: it does not depend on the boosts.
        kept_in: a file of legs that is read first and appended to; it is replaced if it belongs to another run or to
            another state of the index.
        patience_s: seconds that the cluster may be unavailable.

    Raises:
        StoreUnavailable: the cluster stayed unavailable; the message has the number of queries done.
    """
    store = None
    if kept_in is not None:
        of = f"{_state(where.cluster)} {depth} {tuning.boosts} {tuning.bm25} {where.tenant} {where.ignore_identical}"
        of += f" {where.settings.index.languages}" if where.settings.index.languages else ""
        store = _LegsFile(kept_in, of)
    run = QueryRun(load, patience_s, progress, found=store.read(queries) if store else {})
    progress(len(run.found))
    factor = lexical_factor(where.cluster)
    fields = QueryFields(where.settings.index)
    there = available(fields.all, mappings_of(where.cluster)) if fields.all else {}

    def work(retrieval: Retrieval, query_id: str) -> QueryLegs:
        dense = dense_from.get(query_id) if dense_from else None
        query = read_query(queries[query_id][:MAX_QUERY_CHARACTERS], fields.of(queries[query_id], there))
        legs = _legs(retrieval, query, queries[query_id], vectors[query_id], where.tenant, tuning, depth, dense, factor)
        return _drop_document(legs, query_id) if where.ignore_identical else legs

    def keep(query_id: str, legs: QueryLegs) -> None:
        if store:
            store.add(query_id, queries[query_id], legs)

    try:
        return CollectedLegs(run.go(list(queries), where.cluster, work, keep), run.failed)
    except TargetUnavailable as error:
        again = "repeat the command to resume" if store else "run the command again"
        done = f"{len(run.found)} of {len(queries)} queries were searched; {again}"
        raise StoreUnavailable(f"{error.detail.rstrip('.')}. {done}") from error


def _legs(
    retrieval: Retrieval,
    query: QueryText,
    text: str,
    vector: npt.NDArray[np.float32],
    tenant: str,
    tuning: Tuning,
    depth: int,
    dense: QueryLegs | None,
    factor: float,
) -> QueryLegs:
    call = evaluation_call(
        text, tenant=tenant, tuning=tuning, depth=depth, timeout_ms=_TIMEOUT_MS, query=query, lexical_factor=factor
    )
    trace = Trace()
    left = retrieval.lexical(call, trace)
    right = dense.dense if dense is not None else retrieval.dense(call, trace, vector.tolist()).candidates
    require_whole(trace)
    return QueryLegs(
        query=call.query,
        lexical=left.candidates,
        dense=right,
        bonus=exact_matches(left)[0],
        lexical_ms=trace.timings["lexical_ms"],
        dense_ms=trace.timings["vector_ms"] if dense is None else dense.dense_ms,
    )


def _drop_document(legs: QueryLegs, document_id: str) -> QueryLegs:
    def others(side: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        return tuple(item for item in side if item.document_id != document_id)

    return replace(legs, lexical=others(legs.lexical), dense=others(legs.dense))


def require_majority(found: CollectedLegs, asked: int) -> None:
    """Raise StoreError if more than half of the queries failed: the rest would not be representative."""
    if len(found.failed) * 2 > asked:
        reason = next(iter(found.failed.values()))
        raise StoreError(f"{len(found.failed)} of {asked} queries failed ({reason}); nothing was measured")


def _state(cluster: Cluster) -> str:
    """Return a value that changes with every write: legs of different states must not be measured together."""
    answer = cluster.request("GET", f"/{cluster.read_alias}/_stats/docs", params={"level": "shards"})
    return " ".join(
        f"{name} {item['uuid']} {sorted(int(copy['seq_no']['max_seq_no']) for copy in shard)}"
        for name, item in sorted(answer["indices"].items())
        for _, shard in sorted(item["shards"].items())
    )


class _LegsFile:
    """File of legs as JSON lines; the first line identifies the run."""

    def __init__(self, path: Path, of: str) -> None:
        self._path = path
        self._key = hashlib.sha256(of.encode()).hexdigest()

    def read(self, queries: Mapping[str, str]) -> dict[str, QueryLegs]:
        found: dict[str, QueryLegs] = {}
        if self._path.exists():
            data = self._path.read_bytes()
            lines = data.splitlines()
            if lines and _parse_object(lines[0]).get("key") == self._key:
                for row in map(_parse_object, lines[1:]):
                    # an incomplete line of a killed run is an empty object; a query's text may have changed
                    if row and row["text"] == queries.get(row["id"]):
                        found[row["id"]] = _legs_of_row(row)
                if not data.endswith(b"\n"):  # otherwise the next line would be appended to the incomplete one
                    with self._path.open("ab") as file:
                        file.write(b"\n")
                return found
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(orjson.dumps({"key": self._key}) + b"\n")
        return found

    def add(self, query_id: str, text: str, legs: QueryLegs) -> None:
        row = {
            "id": query_id,
            "text": text,
            "lexical": [(item.id, item.document_id, item.score) for item in legs.lexical],
            "dense": [(item.id, item.document_id, item.score) for item in legs.dense],
            "bonus": legs.bonus,
            "ms": [legs.lexical_ms, legs.dense_ms],
        }
        with self._path.open("ab") as file:
            file.write(orjson.dumps(row) + b"\n")


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _legs_of_row(row: Mapping[str, Any]) -> QueryLegs:
    def side(items: Sequence[Sequence[Any]]) -> tuple[Candidate, ...]:
        return tuple(Candidate(*item) for item in items)

    return QueryLegs(
        read_query(row["text"][:MAX_QUERY_CHARACTERS]),
        side(row["lexical"]),
        side(row["dense"]),
        row["bonus"],
        *row["ms"],
    )
