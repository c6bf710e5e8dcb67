"""Evaluation (`braid evaluate`): every way of searching a judged set, measured on the same legs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from app import __version__
from app.evaluation.collect import CollectedLegs, Load, Progress, collect, require_majority
from app.evaluation.dataset import JudgedSet
from app.evaluation.measures import measure
from app.evaluation.ranking import NormalizedLegs, normalize_all, rrf_ranking, single_rankings
from app.evaluation.reranked import rerank_all
from app.evaluation.results import Evaluation, WayResult
from app.evaluation.target import EvaluationTarget, query_vectors
from app.search.rerank_stage import rerank_parameters
from app.search.reranking import Reranker
from app.search.weighting import Weight, learned_weight, model_for
from app.tuning import Tuning

RERANK_WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0)
ALPHAS = tuple(round(step / 10, 1) for step in range(11))
NO_RERANKER = "no reranker is configured, so reranking was not measured"


def evaluate(
    judged: JudgedSet,
    where: EvaluationTarget,
    tuning: Tuning,
    *,
    load: Load,
    kept_in: Path,
    whole: bool | None,
    alphas: Sequence[float] = ALPHAS,
    progress: Progress = lambda done: None,
    reranked: Progress = lambda done: None,
) -> Evaluation:
    """Search all queries of a set once and measure every way of ranking the results.

    The ways are BM25, dense, linear over `alphas`, RRF, the learned weight, and the default ranking (learned, else
    fixed weight) reranked by the configured reranker, over `RERANK_WEIGHTS` and the active weight.

    Args:
        tuning: boosts, candidates, normalisation, fixed weight and model.
        kept_in: folder for the legs, from which an interrupted run resumes.
        whole: form of the ingested corpus, for the report; None: the store's content.

    Raises:
        StoreUnavailable, RerankerUnavailable: one of them stayed unavailable; repeat the call to resume.
        StoreError, RerankerError: most queries failed.
    """
    began = time.perf_counter()
    depth = where.settings.search.candidates or tuning.candidates
    vectors = query_vectors(judged.queries, where.encoder)
    collected = collect(
        judged.queries,
        vectors,
        where,
        tuning,
        depth=depth,
        load=load,
        kept_in=kept_in / "legs.jsonl",
        progress=progress,
    )
    require_majority(collected, len(judged.queries))
    seconds = time.perf_counter() - began
    prepared = normalize_all(collected.legs, tuning.normalization)
    fixed = tuning.alpha if where.settings.search.alpha is None else where.settings.search.alpha
    ways = [
        *_single_ways(judged, collected, seconds),
        *_linear_ways(judged, collected, prepared, seconds, alphas, fixed),
    ]
    ways.append(
        _way("RRF", "rrf", judged, collected, seconds, {
            query: rrf_ranking(legs, where.settings.search.rrf_rank_constant) for query, legs in collected.legs.items()
        })
    )  # fmt: skip
    served, shares = f"linear {fixed:g}", dict.fromkeys(collected.legs, fixed)
    notes = [f"{len(collected.failed)} queries failed: {_first_failure(collected.failed)}"] if collected.failed else []
    if (model := model_for(tuning, where.encoder.name, where.calibration)) is not None:
        weights = {
            query: learned_weight(model, Weight(fixed, "default", ""), legs.query, legs.lexical, legs.dense)
            for query, legs in collected.legs.items()
        }
        predictions = {query: weight.alpha for query, weight in weights.items()}
        if where.settings.search.learned_fusion and where.settings.search.alpha is None:
            served, shares = "learned", predictions
        rankings = {query: item.ranking(predictions[query]) for query, item in prepared.items()}
        predicted = sum(weight.source == "learned" for weight in weights.values())
        ways.append(
            _way("learned", "learned", judged, collected, seconds, rankings,
                 note=f"predicted for {predicted} of {len(weights)} queries, the fixed weight for the others")
        )  # fmt: skip
    else:
        notes.append(f"there is no learned weight for the embedding model {where.encoder.name}")
    if where.reranker is None:
        notes.append(NO_RERANKER)
    else:
        meant = tuning.model_copy(update={"candidates": depth})
        more, problem = _reranked_ways(
            judged, where, where.reranker, meant, collected, served, shares, seconds, load, reranked
        )
        ways += more
        notes += problem
    context = {
        "Braid": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "embedding model": where.encoder.name,
        "reranker": where.reranker.name if where.reranker is not None else "none",
        "candidates of each leg": str(depth),
        "normalization": tuning.normalization,
        "tuning": str(tuning.version),
        "language": where.settings.index.language,
        "shards": str(where.shards),
        "corpus": {None: "what the store holds", True: "rows as they are", False: "rows cut into passages"}[whole],
        "the query's own document": "left out" if where.ignore_identical else "counts as any other",
        "load": f"{load.workers} queries at once" + (f", at most {load.rate:g} a second" if load.rate else ""),
    }
    return Evaluation(judged, tuple(ways), f"linear {fixed:g}", context, tuple(notes))


def _single_ways(judged: JudgedSet, collected: CollectedLegs, seconds: float) -> list[WayResult]:
    single = {query: single_rankings(legs) for query, legs in collected.legs.items()}
    legs = list(collected.legs.values())
    lexical, dense = ({query: rankings[leg] for query, rankings in single.items()} for leg in (0, 1))
    return [
        _way("BM25", "single leg", judged, collected, seconds, lexical, times=[item.lexical_ms for item in legs]),
        _way("dense", "single leg", judged, collected, seconds, dense, times=[item.dense_ms for item in legs]),
    ]


def _linear_ways(
    judged: JudgedSet,
    collected: CollectedLegs,
    prepared: Mapping[str, NormalizedLegs],
    seconds: float,
    alphas: Sequence[float],
    fixed: float,
) -> list[WayResult]:
    return [
        _way(
            f"linear {alpha:g}",
            "linear",
            judged,
            collected,
            seconds,
            {query: item.ranking(alpha) for query, item in prepared.items()},
            alpha=alpha,
        )
        for alpha in sorted({*alphas, fixed})
    ]


def _reranked_ways(
    judged: JudgedSet,
    where: EvaluationTarget,
    reranker: Reranker,
    tuning: Tuning,
    collected: CollectedLegs,
    served: str,
    shares: Mapping[str, float],
    seconds: float,
    load: Load,
    progress: Progress,
) -> tuple[list[WayResult], list[str]]:
    """Measure the way `served`, reranked at several weights; return the ways and the problems."""
    began = time.perf_counter()
    depth, own = rerank_parameters(where.settings.rerank, tuning, reranker)
    depth = min(depth, tuning.candidates)
    found = rerank_all(
        judged.queries, collected.legs, shares, where, reranker, tuning, depth=depth, load=load, progress=progress
    )
    seconds += time.perf_counter() - began
    # a failed query counts as a failure of the way, 0 in every measure, like one whose legs failed
    failed = found.failed
    legs = collected.legs
    times = [
        max(legs[query].lexical_ms, legs[query].dense_ms) + item.milliseconds for query, item in found.queries.items()
    ]
    ways = []
    for weight in sorted({*RERANK_WEIGHTS, own}):
        rankings = {
            query: item.ranking(weight, depth, calibrated=reranker.calibrated) for query, item in found.queries.items()
        }
        name = f"{served} + rerank" if weight == own else f"{served} + rerank at {weight:g}"
        note = f"{reranker.name}, first {depth} candidates, weight {weight:g}"
        ways.append(
            _way(name, "rerank", judged, collected, seconds, rankings, times=times, also_failed=len(failed), note=note)
        )
    ways.sort(key=lambda way: way.name)  # the active one first
    return ways, ([f"{len(failed)} queries could not be reranked: {_first_failure(failed)}"] if failed else [])


def _way(
    name: str,
    group: str,
    judged: JudgedSet,
    collected: CollectedLegs,
    seconds: float,
    rankings: Mapping[str, Sequence[str]],
    *,
    alpha: float | None = None,
    times: Sequence[float] | None = None,
    also_failed: int = 0,
    note: str = "",
) -> WayResult:
    # the legs run in parallel, so a query waits for the slower one
    spent = times or [max(legs.lexical_ms, legs.dense_ms) for legs in collected.legs.values()]
    return WayResult(
        name=name,
        group=group,
        measured=measure(judged.qrels, rankings),
        alpha=alpha,
        seconds=round(seconds, 3),
        ms_p50=round(statistics.median(spent), 3) if spent else None,
        ms_p95=round(sorted(spent)[min(len(spent) - 1, int(0.95 * len(spent)))], 3) if spent else None,
        failed=len(collected.failed) + also_failed,
        note=note,
    )


def _first_failure(failed: Mapping[str, str]) -> str:
    query, reason = next(iter(failed.items()))
    return f"query {query!r}: {reason}"
