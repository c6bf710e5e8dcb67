"""`braid evaluate`: every way of searching a judged set, measured on the same legs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app import __version__
from app.config import Settings
from app.embedding.encoder import Encoder
from app.evaluation.collect import Collected, Load, Progress, QueryLegs, collect, require_most
from app.evaluation.dataset import JudgedSet
from app.evaluation.measures import measure
from app.evaluation.ranking import Prepared, prepare_all, rrf_ranking, single_rankings
from app.evaluation.results import Evaluation, WayResult
from app.search.weighting import Weight, learned_weight, model_for
from app.store.client import Cluster
from app.tuning import Tuning

ALPHAS = tuple(round(step / 10, 1) for step in range(11))
NO_RERANKER = "no reranker is configured, so nothing was measured with one"


@dataclass(frozen=True, slots=True)
class Where:
    """What is searched: a cluster's view of an index, whose passages, and with which models."""

    cluster: Cluster
    tenant: str
    encoder: Encoder
    settings: Settings
    shards: int
    ignore_identical: bool = False


def query_vectors(queries: Mapping[str, str], encoder: Encoder) -> dict[str, npt.NDArray[np.float32]]:
    """The vector of each query."""
    return dict(zip(queries, encoder.encode_queries(list(queries.values())), strict=True))


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
) -> Evaluation:
    """Search all queries of a set once and measure BM25, dense, linear over `alphas`, RRF and the learned weight.

    Args:
        judged: the set.
        where: what is searched.
        tuning: boosts, candidates, normalisation, fixed weight and model.
        load: bound on the work.
        kept_in: folder for the legs, so that a run that broke off goes on.
        whole: how the corpus went in, for the report; None: it is what the store holds.
        alphas: dense shares.
        progress: told how many queries more are done.

    Raises:
        StoreUnavailable: the cluster stayed away; the same call again goes on where it was.
        StoreError: most queries failed.
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
    notes = [f"{len(collected.failed)} queries failed: {_first(collected.failed)}"] if collected.failed else []
    if (model := model_for(tuning, where.encoder.name)) is not None:
        weights = {
            query: learned_weight(model, Weight(fixed, "default", ""), legs.query, legs.lexical, legs.dense)
            for query, legs in collected.legs.items()
        }
        rankings = {query: item.ranking(weights[query].alpha) for query, item in prepared.items()}
        predicted = sum(weight.source == "learned" for weight in weights.values())
        ways.append(
            _way("learned", "learned", judged, collected, seconds, rankings,
                 note=f"predicted for {predicted} of {len(weights)} queries, the fixed weight for the others")
        )  # fmt: skip
    else:
        notes.append(f"there is no learned weight for the embedding model {where.encoder.name}")
    context = {
        "Braid": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "embedding model": where.encoder.name,
        "candidates of each leg": str(depth),
        "normalization": tuning.normalization,
        "tuning": str(tuning.version),
        "language": where.settings.language,
        "shards": str(where.shards),
        "corpus": {None: "what the store holds", True: "rows as they are", False: "rows cut into passages"}[whole],
        "the query's own document": "left out" if where.ignore_identical else "counts as any other",
        "load": f"{load.workers} queries at once" + (f", at most {load.rate:g} a second" if load.rate else ""),
    }
    return Evaluation(judged, tuple(ways), f"linear {fixed:g}", context, (*notes, NO_RERANKER))


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
        failed=len(collected.failed),
        note=note,
    )


def _all(collected: Collected) -> list[QueryLegs]:
    return list(collected.legs.values())


def _first(failed: Mapping[str, str]) -> str:
    query, reason = next(iter(failed.items()))
    return f"query {query!r}: {reason}"
