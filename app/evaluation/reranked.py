"""Reranking for evaluation: candidates are scored once per query, then blended at any weight and depth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.errors import RerankerError, RerankerUnavailable, StoreError, StoreUnavailable
from app.evaluation.collect import Load, Progress, QueryLegs, QueryRun, TargetUnavailable
from app.evaluation.ranking import Array, documents_of
from app.evaluation.target import EvaluationTarget, PartialAnswer, evaluation_call, require_whole
from app.search.fusion import FusedCandidate, fuse_linear
from app.search.rerank_stage import read_subjects
from app.search.reranking import Reranker, arrange, is_decisive
from app.search.retrieval import Retrieval
from app.search.stages import Passages
from app.search.trace import Trace
from app.tuning import Tuning

_TIMEOUT_MS = 120_000
"""Timeout of one query: evaluation waits for every score, however slow the reranker is."""
_PATIENCE_S = 150.0
"""Seconds to wait for an unavailable reranker or cluster: longer than one query may take."""


@dataclass(frozen=True, slots=True)
class RerankedQuery:
    """A query's candidates, best fused first, the reranker's scores of the first of them, and the time taken (ms).

    There are no scores if the lead of the best candidate is decisive, because the service does not rerank then.
    """

    candidates: tuple[FusedCandidate, ...]
    scores: Array
    milliseconds: float

    def ranking(self, weight: float, depth: int, *, calibrated: bool) -> list[str]:
        """Return documents, best first, in the service's order with this weight and depth (0: the fused order).

        This holds where the service scores all of them; one that stops early has the top of a page in the same order.
        """
        most = min(depth, len(self.scores))
        head, tail = self.candidates[:most], self.candidates[most:]
        return documents_of(arrange(head, tail, self.scores[:most], most, weight, calibrated=calibrated))


@dataclass(frozen=True, slots=True)
class RerankedSet:
    """Reranked queries by id; failed ones with the reason."""

    queries: dict[str, RerankedQuery]
    failed: dict[str, str]


def rerank_all(
    texts: Mapping[str, str],
    legs: Mapping[str, QueryLegs],
    alphas: Mapping[str, float],
    where: EvaluationTarget,
    reranker: Reranker,
    tuning: Tuning,
    *,
    depth: int,
    load: Load,
    progress: Progress = lambda done: None,
) -> RerankedSet:
    """Fuse each query's legs at its own dense share and score the first `depth` passages.

    Args:
        alphas: query id -> its dense share.
        tuning: provides normalisation and candidates.
        depth: number of passages to score; limited to `tuning`'s candidates per leg, as in the service.

    Raises:
        RerankerUnavailable, StoreUnavailable: the reranker or the cluster stayed unavailable.
        RerankerError: most queries failed.
    """
    depth = min(depth, tuning.candidates)
    run: QueryRun[RerankedQuery] = QueryRun(load, _PATIENCE_S, progress)

    def work(retrieval: Retrieval, query_id: str) -> RerankedQuery:
        return _rerank_one(texts[query_id], legs[query_id], alphas[query_id], reranker, retrieval, where, tuning, depth)

    try:
        found, failed = run.go(list(legs), where.cluster, work), run.failed
    except TargetUnavailable as error:
        told = (
            f"{error.detail.rstrip('.')}. {len(run.found)} of {len(legs)} queries were reranked; run the command again"
        )
        kind = StoreUnavailable if isinstance(error.__cause__, StoreError) else RerankerUnavailable
        raise kind(told) from error
    if len(failed) * 2 > len(legs):
        reason = next(iter(failed.values()))
        raise RerankerError(
            f"{len(failed)} of {len(legs)} queries could not be reranked ({reason}); nothing was measured. "
            "Set BRAID_RERANKER=none to leave the reranker out"
        )
    return RerankedSet(found, failed)


def _rerank_one(
    text: str,
    legs: QueryLegs,
    alpha: float,
    reranker: Reranker,
    retrieval: Retrieval,
    where: EvaluationTarget,
    tuning: Tuning,
    depth: int,
) -> RerankedQuery:
    fused = fuse_linear(*legs.cut(tuning.candidates), alpha, normalization=tuning.normalization, bonus=legs.bonus)
    margin = where.settings.rerank.skip_margin
    if margin is not None and where.settings.rerank.default and is_decisive(fused, margin):
        return RerankedQuery(tuple(fused), np.empty(0), 0.0)
    call = evaluation_call(
        text, tenant=where.tenant, tuning=tuning, depth=depth, timeout_ms=_TIMEOUT_MS, query=legs.query
    )
    trace = Trace()
    found, passages = read_subjects(retrieval, call, trace, Passages(), [item.id for item in fused[:depth]], reranker)
    require_whole(trace)
    if passages.vanished:
        raise PartialAnswer(
            f"{len(passages.vanished)} passages were deleted after they were ranked; run the command again"
        )
    subjects = list(found.values())
    scoring = reranker.begin(call.request.query, None)
    began = time.perf_counter()
    parts, done = [], 0
    for size in scoring.blocks(subjects):
        parts.append(scoring.score(subjects[done : done + size], call.deadline))
        done += size
    spent = round((time.perf_counter() - began) * 1000, 3)
    return RerankedQuery(tuple(fused), np.concatenate(parts) if parts else np.empty(0), spent)
