"""What both legs give for every query of a set: collected once, fused afterwards in as many ways as one likes.

The requests are those of the service (`app.search.retrieval`). Load on the cluster is bounded by the number of workers
and, if wanted, a rate; each query's legs are appended to a file as they come, so that a run that broke off goes on.
A cluster that goes away for a moment is waited for; one that stays away ends the run, however many queries are left.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ValidationError

from app.deadline import Deadline
from app.errors import (
    BraidError,
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    RerankerUnavailable,
    StoreError,
    StoreUnavailable,
)
from app.passage import Candidate
from app.querytext import QueryText, read_query
from app.search.request import MAX_QUERY_CHARACTERS, SearchRequest
from app.search.retrieval import Retrieval, Run
from app.search.service import exact_matches
from app.store.client import Cluster
from app.store.filters import Scope, clauses
from app.store.responses import Leg
from app.tuning import Tuning

_TIMEOUT_MS = 30_000
_PATIENCE_S = 20.0
_PAUSE_S = 0.5
"""Between two attempts to reach what is away."""
Progress = Callable[[int], None]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Load:
    """How hard the cluster may be worked: queries at once, and queries a second (None: as fast as they come)."""

    workers: int = 2
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class QueryLegs:
    """Both legs of one query, best first, what exact matches add, and how long each leg took (ms)."""

    query: QueryText
    lexical: tuple[Candidate, ...]
    dense: tuple[Candidate, ...]
    bonus: dict[str, float]
    lexical_ms: float
    dense_ms: float

    def cut(self, candidates: int) -> tuple[Sequence[Candidate], Sequence[Candidate]]:
        """Both legs as a search of so many candidates has them: exact matches stay, however low they rank."""
        exact = [item for item in self.lexical[candidates:] if item.id in self.bonus]
        return [*self.lexical[:candidates], *exact], self.dense[:candidates]


@dataclass(frozen=True, slots=True)
class Collected:
    """Legs by query id, and the queries that failed or were answered in part, with the reason."""

    legs: dict[str, QueryLegs]
    failed: dict[str, str]


class Pace:
    """Lets no more than `rate` callers a second pass; none waits any longer once `stopped` is set."""

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


class Away(BraidError):
    """The cluster, or the reranker, answered nobody for longer than it is waited for; its cause says which."""


class Patience:
    """Tries again while the cluster or the reranker is away or full, for so long in all since one last answered."""

    def __init__(self, seconds: float, stopped: threading.Event) -> None:
        self._seconds = seconds
        self._stopped = stopped
        self._answered = time.monotonic()

    def go(self, search: Callable[[], _Answer]) -> _Answer:
        """What `search` returns. Raises Away, and what else `search` raises."""
        while True:
            if self._stopped.is_set():
                raise Away("stopped")
            try:
                found = search()
            except (StoreUnavailable, RerankerUnavailable, Overloaded, DeadlineExceeded) as error:
                if time.monotonic() - self._answered > self._seconds:
                    raise Away(error.detail) from error
                if isinstance(error, DeadlineExceeded):  # perhaps this query alone is too much
                    raise
                self._stopped.wait(_PAUSE_S)
            else:
                self._answered = time.monotonic()
                return found


def collect(
    queries: Mapping[str, str],
    vectors: Mapping[str, npt.NDArray[np.float32]],
    *,
    cluster: Cluster,
    tenant: str,
    tuning: Tuning,
    depth: int,
    load: Load,
    dense_from: Mapping[str, QueryLegs] | None = None,
    kept_in: Path | None = None,
    ignore_identical: bool = False,
    patience_s: float = _PATIENCE_S,
    progress: Progress = lambda done: None,
) -> Collected:
    """Search all queries.

    Args:
        queries: id -> text; longer ones than the service takes are cut as it would refuse them.
        vectors: id -> the query's vector.
        cluster: with the aliases of the index that is to be searched.
        tenant: whose passages.
        tuning: whose boosts weigh the lexical leg.
        depth: candidates of each leg.
        load: bound on the work.
        dense_from: legs collected before, whose dense side is taken over: it does not depend on the boosts.
        ignore_identical: leave out the document whose id is the query's own, as BEIR does for sets whose queries are
            documents of the corpus.
        kept_in: a file of legs that is read first and added to; it is started anew where it is of another run, or of
            another state of the index.
        patience_s: how long a cluster may be away.
        progress: told how many queries more are done.

    Raises:
        StoreUnavailable: the cluster stayed away; how many queries were done.
    """
    store = None
    if kept_in is not None:
        of = f"{_state(cluster)} {depth} {tuning.boosts} {tuning.bm25} {tenant} {ignore_identical}"
        store = _File(kept_in, of)
    found = store.read(queries) if store else {}
    failed: dict[str, str] = {}
    progress(len(found))
    stopped = threading.Event()
    pace, patience = Pace(load.rate, stopped), Patience(patience_s, stopped)
    todo = [query_id for query_id in queries if query_id not in found]
    # a leg of a query runs in the thread of its query: the workers are all that is at work
    with ThreadPoolExecutor(load.workers, thread_name_prefix="evaluate") as workers:
        retrieval = Retrieval(cluster, workers)

        def one(query_id: str) -> QueryLegs:
            pace.wait()
            dense = dense_from.get(query_id) if dense_from else None
            legs = patience.go(
                lambda: _legs(retrieval, queries[query_id], vectors[query_id], tenant, tuning, depth, dense)
            )
            return _without(legs, query_id) if ignore_identical else legs

        jobs = {workers.submit(one, query_id): query_id for query_id in todo}
        try:
            for job in as_completed(jobs):
                query_id = jobs[job]
                try:
                    found[query_id] = job.result()
                except Away as error:
                    raise StoreUnavailable(_so_far(error, len(found), len(queries), kept_in is not None)) from error
                except BraidError as error:
                    failed[query_id] = f"{error.kind}: {error.detail}"
                else:
                    if store:
                        store.add(query_id, queries[query_id], found[query_id])
                progress(1)
        except BaseException:
            stopped.set()
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    return Collected({query_id: found[query_id] for query_id in queries if query_id in found}, failed)


def _legs(
    retrieval: Retrieval,
    text: str,
    vector: npt.NDArray[np.float32],
    tenant: str,
    tuning: Tuning,
    depth: int,
    dense: QueryLegs | None,
) -> QueryLegs:
    try:
        request = SearchRequest(query=text[:MAX_QUERY_CHARACTERS], candidates=depth, size=1)
    except ValidationError as error:
        raise InvalidInput(f"the service takes no such query: {error.errors(include_url=False)[0]['msg']}") from error
    run = Run(
        request=request,
        query=read_query(text[:MAX_QUERY_CHARACTERS]),
        tuning=tuning,
        deadline=Deadline.after(_TIMEOUT_MS),
        filters=clauses(Scope(tenant)),
        depth=depth,
    )
    left = retrieval.lexical(run)
    right = retrieval.dense(run, vector.tolist(), count_outside=False) if dense is None else None
    if run.degraded:
        raise PartialAnswer("; ".join(item.reason for item in run.degraded))
    return QueryLegs(
        query=run.query,
        lexical=left.candidates,
        dense=_candidates(right, dense),
        bonus=exact_matches(left)[0],
        lexical_ms=run.timings["lexical_ms"],
        dense_ms=run.timings["vector_ms"] if dense is None else dense.dense_ms,
    )


def _without(legs: QueryLegs, document_id: str) -> QueryLegs:
    def others(side: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        return tuple(item for item in side if item.document_id != document_id)

    return replace(legs, lexical=others(legs.lexical), dense=others(legs.dense))


class PartialAnswer(BraidError):
    """Some shards failed, or time ran out: such a ranking must not be measured."""

    title = "Answered in part"
    kind = "partial-answer"


def _candidates(right: Leg | None, dense: QueryLegs | None) -> tuple[Candidate, ...]:
    if right is not None:
        return right.candidates
    assert dense is not None  # noqa: S101 - one of the two is given
    return dense.dense


def require_most(found: Collected, asked: int) -> None:
    """Raise StoreError where more than half of the queries failed: the other half says little about all of them."""
    if len(found.failed) * 2 > asked:
        reason = next(iter(found.failed.values()))
        raise StoreError(f"{len(found.failed)} of {asked} queries failed ({reason}); nothing was measured")


def _so_far(error: BraidError, done: int, asked: int, kept: bool) -> str:
    told = f"{error.detail.rstrip('.')}. {done} of {asked} queries were searched"
    return f"{told}; the same command again goes on with the others" if kept else f"{told}; run the same command again"


def _state(cluster: Cluster) -> str:
    """Another one after every write: legs from before and after a write must not be measured together."""
    answer = cluster.request("GET", f"/{cluster.read_alias}/_stats/docs", params={"level": "shards"})
    return " ".join(
        f"{name} {item['uuid']} {sorted(int(copy['seq_no']['max_seq_no']) for copy in shard)}"
        for name, item in sorted(answer["indices"].items())
        for _, shard in sorted(item["shards"].items())
    )


class _File:
    """JSON lines of legs, the first of which says what they are of."""

    def __init__(self, path: Path, of: str) -> None:
        self._path = path
        self._key = hashlib.sha256(of.encode()).hexdigest()

    def read(self, queries: Mapping[str, str]) -> dict[str, QueryLegs]:
        found: dict[str, QueryLegs] = {}
        if self._path.exists():
            data = self._path.read_bytes()
            lines = data.splitlines()
            if lines and _object(lines[0]).get("key") == self._key:
                for row in map(_object, lines[1:]):
                    # a line that a killed run left half written is an empty object; a query may have a new text
                    if row and row["text"] == queries.get(row["id"]):
                        found[row["id"]] = _from_row(row)
                if not data.endswith(b"\n"):  # else the next line would be lost with the half one
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


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _from_row(row: Mapping[str, Any]) -> QueryLegs:
    def side(items: Sequence[Sequence[Any]]) -> tuple[Candidate, ...]:
        return tuple(Candidate(*item) for item in items)

    return QueryLegs(
        read_query(row["text"][:MAX_QUERY_CHARACTERS]),
        side(row["lexical"]),
        side(row["dense"]),
        row["bonus"],
        *row["ms"],
    )
