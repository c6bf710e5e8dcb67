"""Quality on the user's judgements: BM25, dense, hybrid by weight, and the best weight with its confidence."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

import numpy as np

from app.evaluation.collect import QueryLegs
from app.evaluation.comparison import compare, interval
from app.evaluation.dataset import JudgedSet
from app.evaluation.findings import shown
from app.evaluation.measures import Measurement, measure
from app.evaluation.ranking import NormalizedLegs, documents_of, rrf_ranking, single_rankings
from app.evaluation.ways import ALPHAS
from app.inspection.findings import Curve, Finding, Severity, ok, skipped
from app.inspection.subject import Subject, Vector
from app.passage import Candidate
from app.querytext import read_query
from app.store.client import StoreRequestError

_MEASURE = "NDCG@10"
_DEPTH, _RANK_CONSTANT = 100, 60
_SHARE = 0.8
_RESAMPLES = 2000
_LOOKED_UP = 500


def check_quality(subject: Subject) -> Iterator[Finding]:
    """Yield NDCG@10 of each leg, of both by weight and by rank, and of the index's own pipeline."""
    if find_spec("ir_measures") is None or find_spec("scipy") is None:
        yield skipped("Quality", "the libraries of the extra `evaluation` are missing", "install braid-rag[evaluation]")
        return
    judged = subject.judged
    assert judged is not None  # noqa: S101 - the run checks it
    yield from _missing(subject, judged)
    until = time.monotonic() + _SHARE * subject.reader.budget.remaining_s("quality")
    legs: dict[str, QueryLegs] = {}
    native: dict[str, list[str]] | None = {}
    for key, text in judged.queries.items():
        legs[key] = _legs(subject, text, subject.query_vectors.get(key))
        if native is not None and (vector := subject.query_vectors.get(key)) is not None:
            hits = _native(subject, text, vector)
            native = None if hits is None else {**native, key: hits}
        if time.monotonic() > until:
            break
    qrels = {key: judged.qrels[key] for key in legs}
    lexical = measure(qrels, {key: single_rankings(item)[0] for key, item in legs.items()})
    ways: dict[str, Measurement] = {"BM25": lexical}
    if not all(key in subject.query_vectors for key in legs):
        yield skipped("Dense and hybrid quality", "some judged queries have no vector")
        yield _told("Quality of the lexical leg", ways, len(legs), len(judged.queries))
        return
    ways["dense"] = measure(qrels, {key: single_rankings(item)[1] for key, item in legs.items()})
    ways["RRF"] = measure(qrels, {key: rrf_ranking(item, _RANK_CONSTANT) for key, item in legs.items()})
    if native:
        ways["the index's own pipeline"] = measure(qrels, native)
    prepared = {key: NormalizedLegs.of(item, "min_max") for key, item in legs.items()}
    curve = {alpha: measure(qrels, {key: item.ranking(alpha) for key, item in prepared.items()}) for alpha in ALPHAS}
    yield from _judge(ways, curve, len(legs), len(judged.queries))


def _judge(
    ways: dict[str, Measurement], curve: Mapping[float, Measurement], done: int, wanted: int
) -> Iterator[Finding]:
    best, low, high = best_weight([list(found.per_query[_MEASURE].values()) for found in curve.values()])
    ways[f"linear {best:g}"] = curve[best]
    points = tuple((alpha, found.means[_MEASURE], *interval(_values(found))) for alpha, found in curve.items())
    lines = {name: found.means[_MEASURE] for name, found in ways.items() if not name.startswith("linear")}
    plot = Curve(f"{_MEASURE} by dense share", "dense share (0: lexical, 1: dense)", _MEASURE, points, lines)
    weights = {"best": best, "low": low, "high": high}
    told = f"the best dense share is {best:g} (95 %: {low:g} to {high:g}), chosen on the same queries"
    yield _told("Quality by judgements", ways, done, wanted, told, plot, weights)
    own = ways.get("the index's own pipeline")
    rival = ("the index's own pipeline", own) if own is not None else ("BM25", ways["BM25"])
    found = compare(rival[1], curve[best], _MEASURE, names=(rival[0], f"linear {best:g}"))
    if found.low > 0:
        yield Finding(
            Severity.NOTE,
            f"Another weight is measurably better than {rival[0]}",
            f"linear {best:g} has {100 * found.mean_difference:+.2f} points of {_MEASURE} "
            f"({100 * found.low:+.2f} to {100 * found.high:+.2f}) over {done} queries",
            f"normalization-processor: min_max, arithmetic_mean, weights [{1 - best:.1f}, {best:.1f}] (lexical, dense)"
            "; check it on other queries",
            {"difference": found.mean_difference, "low": found.low, "high": found.high},
        )


def best_weight(values: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Return the best of `ALPHAS` and its 95 % bounds: percentiles over bootstrap samples of the queries.

    Args:
        values: a measure by weight and query, shape (weights, queries).
    """
    table = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(table.shape[1], size=(_RESAMPLES, table.shape[1]))
    winners = np.stack([table[:, rows].mean(axis=1) for rows in drawn]).argmax(axis=1)
    low, high = np.percentile(winners, [2.5, 97.5], method="nearest")
    return ALPHAS[int(table.mean(axis=1).argmax())], ALPHAS[int(low)], ALPHAS[int(high)]


def _told(
    title: str,
    ways: Mapping[str, Measurement],
    done: int,
    wanted: int,
    further: str = "",
    plot: Curve | None = None,
    weights: Mapping[str, float] | None = None,
) -> Finding:
    bounds = {name: interval(_values(found)) for name, found in ways.items()}
    listed = ", ".join(
        f"{name} {found.means[_MEASURE]:.3f} ({bounds[name][0]:.3f}-{bounds[name][1]:.3f})"
        for name, found in ways.items()
    )
    figures = {
        "queries": done,
        "ways": {name: dict(found.means) for name, found in ways.items()},
        "intervals": {name: list(bound) for name, bound in bounds.items()},
        "best_weight": dict(weights or {}),
    }
    cut = f" of {wanted}, for which time was left" if done < wanted else ""
    evidence = f"{_MEASURE} over {done} queries{cut}: {listed}" + (f"; {further}" if further else "")
    return ok(title, evidence, figures=figures, plot=plot)


def _values(found: Measurement) -> list[float]:
    return list(found.per_query[_MEASURE].values())


def _legs(subject: Subject, text: str, vector: Vector | None) -> QueryLegs:
    began = time.perf_counter()
    lexical = subject.candidates(subject.lexical(text), _DEPTH)
    between = time.perf_counter()
    dense: list[Candidate] = [] if vector is None else subject.candidates(subject.dense(vector, _DEPTH), _DEPTH)
    spent = 1000 * (between - began), 1000 * (time.perf_counter() - between)
    return QueryLegs(read_query(text), tuple(lexical), tuple(dense), {}, *spent)


def _native(subject: Subject, text: str, vector: Vector) -> list[str] | None:
    """Return the documents of a hybrid query by the index's own pipeline; None if that does not work."""
    try:
        found = subject.candidates(subject.hybrid(text, vector, _DEPTH), _DEPTH, pipeline=subject.pipeline)
    except StoreRequestError:
        return None
    return None if any(item.score < 0 for item in found) else documents_of(found)


def _missing(subject: Subject, judged: JudgedSet) -> Iterator[Finding]:
    relevant = sorted({doc for grades in judged.qrels.values() for doc, grade in grades.items() if grade > 0})
    asked = relevant[:_LOOKED_UP]
    if field := subject.id_field:
        several = {"documents": {"terms": {"field": field, "size": len(asked)}}}
        body = {"size": 0, "query": {"terms": {field: asked}}, "aggs": several}
        buckets = subject.reader.search(subject.name, body, search_pipeline="_none")["aggregations"]["documents"][
            "buckets"
        ]
        there = {str(bucket["key"]) for bucket in buckets}
    else:
        there = {item.id for item in subject.candidates({"ids": {"values": asked}}, 2 * len(asked))}
    if lost := [name for name in asked if name not in there]:
        yield Finding(
            Severity.WARNING if there else Severity.CRITICAL,
            "Judged documents are not in the index",
            f"{len(lost)} of {len(asked)} relevant documents are not found by {subject.id_field or '_id'}, such as "
            f"{shown(lost[0], 60)!r}: every way gets lower figures",
            "name the field with the documents' ids by --id-field, or take judgements of this collection",
            {"missing": len(lost), "relevant": len(asked)},
        )
