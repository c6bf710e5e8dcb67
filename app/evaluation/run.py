"""`braid evaluate`: every way of searching a judged set, measured on the same legs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from app import __version__
from app.evaluation.collect import Collected, Load, Progress, QueryLegs, collect, require_most
from app.evaluation.dataset import JudgedSet
from app.evaluation.measures import measure
from app.evaluation.ranking import Prepared, prepare_all, rrf_ranking, single_rankings
from app.evaluation.reranked import rerank_all
from app.evaluation.results import Evaluation, WayResult
from app.evaluation.where import Where, query_vectors
from app.search.rerank_stage import rerank_parameters
from app.search.reranking import Reranker
from app.search.weighting import Weight, learned_weight, model_for
from app.tuning import Tuning

RERANK_WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0)
ALPHAS = tuple(round(step / 10, 1) for step in range(11))
NO_RERANKER = "no reranker is configured, so nothing was measured with one"


def evaluate(
    judged: JudgedSet,
    where: Where,
    tuning: Tuning,
    *,
    load: Load,
    kept_in: Path,
    whole: bool | None,
    alphas: Sequence[float] = ALPHAS,
    progress: Progress = lambda done: None,
    reranked: Progress = lambda done: None,
) -> Evaluation:
    """Search all queries of a set once and measure every way to rank what was found.

    These are BM25, dense, linear over `alphas`, RRF, the learned weight, and what a search is answered with (learned,
    else the fixed weight) reranked by whatever reranker is configured, over `RERANK_WEIGHTS` and the weight in force.

    Args:
        judged: the set.
        where: what is searched.
        tuning: boosts, candidates, normalisation, fixed weight and model.
        load: bound on the work.
        kept_in: folder for the legs, so that a run that broke off goes on.
        whole: how the corpus went in, for the report; None: it is what the store holds.
        alphas: dense shares.
        progress: told how many queries more are searched.
        reranked: told how many queries more are reranked.

    Raises:
        StoreUnavailable, RerankerUnavailable: one stayed away; the same call again goes on where it was.
        StoreError, RerankerError: most queries failed.
    """
    began = time.perf_counter()
    depth = where.settings.candidates or tuning.candidates
    vectors = query_vectors(judged.queries, where.encoder)
    collected = collect(
        judged.queries,
        vectors,
        cluster=where.cluster,
        tenant=where.tenant,
        tuning=tuning,
        depth=depth,
        load=load,
        kept_in=kept_in / "legs.jsonl",
        ignore_identical=where.ignore_identical,
        progress=progress,
    )
    require_most(collected, len(judged.queries))
    seconds = time.perf_counter() - began
    prepared = prepare_all(collected.legs, tuning.normalization)
    fixed = tuning.alpha if where.settings.alpha is None else where.settings.alpha
    ways = [
        *_single_ways(judged, collected, seconds),
        *_linear_ways(judged, collected, prepared, seconds, alphas, fixed),
    ]
    ways.append(
        _way("RRF", "rrf", judged, collected, seconds, {
            query: rrf_ranking(legs, where.settings.rrf_rank_constant) for query, legs in collected.legs.items()
        })
    )  # fmt: skip
    served, shares = f"linear {fixed:g}", dict.fromkeys(collected.legs, fixed)
    notes = [f"{len(collected.failed)} queries failed: {_first(collected.failed)}"] if collected.failed else []
    if (model := model_for(tuning, where.encoder.name)) is not None:
        weights = {
            query: learned_weight(model, Weight(fixed, "default", ""), legs.query, legs.lexical, legs.dense)
            for query, legs in collected.legs.items()
        }
        predictions = {query: weight.alpha for query, weight in weights.items()}
        if where.settings.learned_fusion and where.settings.alpha is None:
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
        "language": where.settings.language,
        "shards": str(where.shards),
        "corpus": {None: "what the store holds", True: "rows as they are", False: "rows cut into passages"}[whole],
        "the query's own document": "left out" if where.ignore_identical else "counts as any other",
        "load": f"{load.workers} queries at once" + (f", at most {load.rate:g} a second" if load.rate else ""),
    }
    return Evaluation(judged, tuple(ways), f"linear {fixed:g}", context, tuple(notes))


def _single_ways(judged: JudgedSet, collected: Collected, seconds: float) -> list[WayResult]:
    rankings = {query: single_rankings(legs) for query, legs in collected.legs.items()}
    lexical = {query: pair[0] for query, pair in rankings.items()}
    dense = {query: pair[1] for query, pair in rankings.items()}
    return [
        _way("BM25", "single leg", judged, collected, seconds, lexical, times=[i.lexical_ms for i in _all(collected)]),
        _way("dense", "single leg", judged, collected, seconds, dense, times=[i.dense_ms for i in _all(collected)]),
    ]


def _linear_ways(
    judged: JudgedSet,
    collected: Collected,
    prepared: Mapping[str, Prepared],
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
    where: Where,
    reranker: Reranker,
    tuning: Tuning,
    collected: Collected,
    served: str,
    shares: Mapping[str, float],
    seconds: float,
    load: Load,
    progress: Progress,
) -> tuple[list[WayResult], list[str]]:
    """The way `served`, reranked at several weights, and what went wrong."""
    began = time.perf_counter()
    depth, own = rerank_parameters(where.settings, tuning, reranker)
    depth = min(depth, tuning.candidates)
    found = rerank_all(
        judged.queries, collected.legs, shares, where, reranker, tuning, depth=depth, load=load, progress=progress
    )
    seconds += time.perf_counter() - began
    # a query that failed here counts as a failure of the way, 0 in every measure, as one whose legs failed does
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
    ways.sort(key=lambda way: way.name)  # the one in force first
    return ways, ([f"{len(failed)} queries could not be reranked: {_first(failed)}"] if failed else [])


def _way(
    name: str,
    group: str,
    judged: JudgedSet,
    collected: Collected,
    seconds: float,
    rankings: Mapping[str, Sequence[str]],
    *,
    alpha: float | None = None,
    times: Sequence[float] | None = None,
    also_failed: int = 0,
    note: str = "",
) -> WayResult:
    # side by side, the slower leg is what a query waits for
    spent = times if times is not None else [max(legs.lexical_ms, legs.dense_ms) for legs in _all(collected)]
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


def _all(collected: Collected) -> list[QueryLegs]:
    return list(collected.legs.values())


def _first(failed: Mapping[str, str]) -> str:
    query, reason = next(iter(failed.items()))
    return f"query {query!r}: {reason}"
