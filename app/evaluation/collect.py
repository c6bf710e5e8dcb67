"""What both legs give for every query of a set: collected once, fused afterwards in as many ways as one likes.

The requests are those of the service (`app.search.retrieval`). Load on the cluster is bounded by the number of workers
and, if wanted, a rate; each query's legs are appended to a file as they come, so that a run that broke off goes on.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from app.deadline import Deadline
from app.errors import BraidError
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
Progress = Callable[[int], None]


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


@dataclass(frozen=True, slots=True)
class Collected:
    """Legs by query id, and the queries that failed or were answered in part, with the reason."""

    legs: dict[str, QueryLegs]
    failed: dict[str, str]


class Pace:
    """Lets no more than `rate` callers a second pass."""

    def __init__(self, rate: float | None) -> None:
        self._step = 1 / rate if rate else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        if not self._step:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._step
        time.sleep(max(0.0, turn - time.monotonic()))


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
        kept_in: a file of legs that is read first and added to; it is started anew where it is of another run.
        progress: told how many queries more are done.
    """
    store = _File(kept_in, f"{cluster.read_alias} {depth} {tuning.boosts} {tuning.bm25} {tenant}") if kept_in else None
    found = store.read(queries) if store else {}
    failed: dict[str, str] = {}
    progress(len(found))
    pace = Pace(load.rate)
    todo = [query_id for query_id in queries if query_id not in found]
    # a leg of a query runs in the thread of its query: the workers are all that is at work
    with ThreadPoolExecutor(load.workers, thread_name_prefix="evaluate") as workers:
        retrieval = Retrieval(cluster, workers)

        def one(query_id: str) -> QueryLegs:
            pace.wait()
            dense = dense_from.get(query_id) if dense_from else None
            return _legs(retrieval, queries[query_id], vectors[query_id], tenant, tuning, depth, dense)

        jobs = {workers.submit(one, query_id): query_id for query_id in todo}
        try:
            for job in as_completed(jobs):
                query_id = jobs[job]
                try:
                    found[query_id] = job.result()
                except BraidError as error:
                    failed[query_id] = f"{error.kind}: {error.detail}"
                else:
                    if store:
                        store.add(query_id, queries[query_id], found[query_id])
                progress(1)
        except BaseException:
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
    run = Run(
        request=SearchRequest(query=text[:MAX_QUERY_CHARACTERS], candidates=depth, size=1),
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


class PartialAnswer(BraidError):
    """Some shards failed, or time ran out: such a ranking must not be measured."""

    title = "Answered in part"
    kind = "partial-answer"


def _candidates(right: Leg | None, dense: QueryLegs | None) -> tuple[Candidate, ...]:
    if right is not None:
        return right.candidates
    assert dense is not None  # noqa: S101 - one of the two is given
    return dense.dense


class _File:
    """JSON lines of legs, the first of which says what they are of."""

    def __init__(self, path: Path, of: str) -> None:
        self._path = path
        self._key = hashlib.sha256(of.encode()).hexdigest()

    def read(self, queries: Mapping[str, str]) -> dict[str, QueryLegs]:
        found: dict[str, QueryLegs] = {}
        if self._path.exists():
            lines = self._path.read_bytes().splitlines()
            if lines and _object(lines[0]).get("key") == self._key:
                for row in map(_object, lines[1:]):
                    # a line that a killed run left half written is an empty object; a query may have a new text
                    if row and row["text"] == queries.get(row["id"]):
                        found[row["id"]] = _from_row(row)
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
