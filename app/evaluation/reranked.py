"""What a reranker makes of fused candidates: scored once for each query, blended afterwards at any weight and depth."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from app.deadline import Deadline
from app.errors import BraidError, RerankerError, RerankerUnavailable, StoreError, StoreUnavailable
from app.evaluation.collect import Away, Load, Pace, PartialAnswer, Patience, Progress, QueryLegs
from app.evaluation.ranking import Array, documents_of
from app.evaluation.where import Where
from app.search.fusion import Fused, fuse_linear
from app.search.request import MAX_QUERY_CHARACTERS, SearchRequest
from app.search.reranking import Reranker, Subject, arrange, decisive
from app.search.retrieval import Retrieval, Run
from app.store.filters import Scope, clauses
from app.tuning import Tuning

_TIMEOUT_MS = 120_000
"""Of one query: evaluating waits for every score, however slow the reranker."""
_PATIENCE_S = 150.0
"""With a reranker or cluster that answers nobody: longer than one query may take."""


@dataclass(frozen=True, slots=True)
class RerankedQuery:
    """A query's candidates, best fused first, the reranker's scores of the first of them, and what they took (ms).

    No scores: the lead of the best is decisive, so that the service does not rerank.
    """

    candidates: tuple[Fused, ...]
    scores: Array
    milliseconds: float

    def ranking(self, weight: float, depth: int, *, calibrated: bool) -> list[str]:
        """Documents, best first, as the service orders them with this weight and depth (0: as they were fused).

        That is, where it scores all of them: a service that stops early has the top of a page in the same order.
        """
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
        depth: how many passages are scored; never more than `tuning` has candidates of a leg, as in the service.
        load: bound on the work.
        progress: told how many queries more are done.

    Raises:
        RerankerUnavailable, StoreUnavailable: the reranker or the cluster stayed away.
        RerankerError: most queries failed.
    """
    depth = min(depth, tuning.candidates)
    found: dict[str, RerankedQuery] = {}
    failed: dict[str, str] = {}
    stopped = threading.Event()
    pace, patience = Pace(load.rate, stopped), Patience(_PATIENCE_S, stopped)
    with ThreadPoolExecutor(load.workers, thread_name_prefix="rerank") as workers:
        retrieval = Retrieval(where.cluster, workers)

        def one(query_id: str) -> RerankedQuery:
            pace.wait()
            text, item, alpha = texts[query_id], legs[query_id], alphas[query_id]
            return patience.go(lambda: _one(text, item, alpha, reranker, retrieval, where, tuning, depth))

        jobs = {workers.submit(one, query_id): query_id for query_id in legs}
        try:
            for job in as_completed(jobs):
                query_id = jobs[job]
                try:
                    found[query_id] = job.result()
                except Away as error:
                    raise _away(error, len(found), len(legs)) from error
                except BraidError as error:
                    failed[query_id] = f"{error.kind}: {error.detail}"
                progress(1)
        except BaseException:
            stopped.set()
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    if len(failed) * 2 > len(legs):
        reason = next(iter(failed.values()))
        raise RerankerError(
            f"{len(failed)} of {len(legs)} queries could not be reranked ({reason}); nothing was measured. "
            "BRAID_RERANKER=none leaves the reranker out"
        )
    return RerankedSet({query_id: found[query_id] for query_id in legs if query_id in found}, failed)


def _one(
    text: str,
    legs: QueryLegs,
    alpha: float,
    reranker: Reranker,
    retrieval: Retrieval,
    where: Where,
    tuning: Tuning,
    depth: int,
) -> RerankedQuery:
    fused = fuse_linear(*legs.cut(tuning.candidates), alpha, normalization=tuning.normalization, bonus=legs.bonus)
    margin = where.settings.rerank_skip_margin
    if margin is not None and where.settings.rerank_default and decisive(fused, margin):
        return RerankedQuery(tuple(fused), np.empty(0), 0.0)
    text = text[:MAX_QUERY_CHARACTERS]
    run = Run(
        request=SearchRequest(query=text, size=1),
        query=legs.query,
        tuning=tuning,
        deadline=Deadline.after(_TIMEOUT_MS),
        filters=clauses(Scope(where.tenant)),
        depth=depth,
    )
    retrieval.read(run, [item.id for item in fused[:depth]], tokens=reranker.reads_tokens)
    if run.degraded:
        raise PartialAnswer("; ".join(item.reason for item in run.degraded))
    if run.vanished:
        raise PartialAnswer(f"{len(run.vanished)} passages were deleted after they were ranked; run it again")
    subjects = [Subject(run.passages[item.id], run.tokens.get(item.id)) for item in fused[:depth]]
    scoring = reranker.begin(text, None)
    began = time.perf_counter()
    parts, done = [], 0
    for size in scoring.blocks(subjects):
        parts.append(scoring.score(subjects[done : done + size], run.deadline))
        done += size
    spent = round((time.perf_counter() - began) * 1000, 3)
    return RerankedQuery(tuple(fused), np.concatenate(parts) if parts else np.empty(0), spent)


def _away(error: Away, done: int, asked: int) -> BraidError:
    told = f"{error.detail.rstrip('.')}. {done} of {asked} queries were reranked; run the same command again"
    return StoreUnavailable(told) if isinstance(error.__cause__, StoreError) else RerankerUnavailable(told)
