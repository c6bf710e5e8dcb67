"""What a reranker makes of fused candidates: scored once for each query, blended afterwards at any weight and depth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from app.deadline import Deadline
from app.errors import BraidError
from app.evaluation.collect import Load, PartialAnswer, Progress, QueryLegs
from app.evaluation.ranking import Array, documents_of
from app.evaluation.where import Where
from app.search.fusion import Fused, fuse_linear
from app.search.request import MAX_QUERY_CHARACTERS, SearchRequest
from app.search.reranking import Reranker, Subject, arrange
from app.search.retrieval import Retrieval, Run
from app.store.filters import Scope, clauses
from app.tuning import Tuning

_TIMEOUT_MS = 120_000
"""Of one query: evaluating waits for every score, however slow the reranker."""


@dataclass(frozen=True, slots=True)
class RerankedQuery:
    """A query's candidates, best fused first, the reranker's scores of the first of them, and what they took (ms)."""

    candidates: tuple[Fused, ...]
    scores: Array
    milliseconds: float

    def ranking(self, weight: float, depth: int, *, calibrated: bool) -> list[str]:
        """Documents, best first, as the service orders them with this weight and depth."""
        most = min(depth, len(self.scores))
        head, tail = self.candidates[:most], self.candidates[most:]
        return documents_of(arrange(head, tail, self.scores[:most], most, weight, calibrated=calibrated))


@dataclass(frozen=True, slots=True)
class RerankedSet:
    """By query id; `failed` with the reason."""

    queries: dict[str, RerankedQuery]
    failed: dict[str, str]


def rerank_all(
    texts: Mapping[str, str],
    legs: Mapping[str, QueryLegs],
    alphas: Mapping[str, float],
    where: Where,
    reranker: Reranker,
    tuning: Tuning,
    *,
    depth: int,
    load: Load,
    progress: Progress = lambda done: None,
) -> RerankedSet:
    """Fuse each query's legs at its own dense share and have the first `depth` passages scored.

    Args:
        texts: query id -> text.
        legs: query id -> its legs.
        alphas: query id -> its dense share.
        where: what is searched.
        reranker: scores the passages.
        tuning: whose normalisation and candidates are used.
        depth: how many passages are scored.
        load: bound on the work.
        progress: told how many queries more are done.
    """
    found: dict[str, RerankedQuery] = {}
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(load.workers, thread_name_prefix="rerank") as workers:
        retrieval = Retrieval(where.cluster, workers)

        def one(query_id: str) -> RerankedQuery:
            return _one(
                texts[query_id], legs[query_id], alphas[query_id], reranker, retrieval, where.tenant, tuning, depth
            )

        jobs = {query_id: workers.submit(one, query_id) for query_id in legs}
        for query_id, job in jobs.items():
            try:
                found[query_id] = job.result()
            except BraidError as error:
                failed[query_id] = f"{error.kind}: {error.detail}"
            progress(1)
    return RerankedSet(found, failed)


def _one(
    text: str,
    legs: QueryLegs,
    alpha: float,
    reranker: Reranker,
    retrieval: Retrieval,
    tenant: str,
    tuning: Tuning,
    depth: int,
) -> RerankedQuery:
    left, right = legs.lexical[: tuning.candidates], legs.dense[: tuning.candidates]
    fused = fuse_linear(left, right, alpha, normalization=tuning.normalization, bonus=legs.bonus)
    text = text[:MAX_QUERY_CHARACTERS]
    run = Run(
        request=SearchRequest(query=text, size=1),
        query=legs.query,
        tuning=tuning,
        deadline=Deadline.after(_TIMEOUT_MS),
        filters=clauses(Scope(tenant)),
        depth=depth,
    )
    retrieval.read(run, [item.id for item in fused[:depth]], tokens=reranker.reads_tokens)
    if run.degraded:
        raise PartialAnswer("; ".join(item.reason for item in run.degraded))
    subjects = [Subject(run.passages[item.id], run.tokens.get(item.id)) for item in fused[:depth]]
    began = time.perf_counter()
    scoring = reranker.begin(text, None)
    parts, done = [], 0
    for size in scoring.blocks(subjects):
        parts.append(scoring.score(subjects[done : done + size], run.deadline))
        done += size
    spent = round((time.perf_counter() - began) * 1000, 3)
    return RerankedQuery(tuple(fused), np.concatenate(parts) if parts else np.empty(0), spent)
