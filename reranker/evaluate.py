"""Evaluation of a reranker (`braid-reranker evaluate`): gain over the first stage, best weight, calibration.

Calibration, bound and weight are fitted on one half of the judged queries and reported on the other half.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.fitting import (
    JudgedQuery,
    Method,
    Point,
    TooFewJudgements,
    best_weight,
    brier,
    calibration_error,
    curve,
    fit_bound,
    fit_isotonic,
    fit_platt,
    judged_query,
)
from reranker.measures import ideal_dcg
from reranker.model_folder import ModelSettings, load_settings, write_settings
from reranker.rankings import DataError, Qrels, Ranking

if TYPE_CHECKING:
    from reranker.cross_encoder import CrossEncoder

Scores = npt.NDArray[np.float64]
_MIN_QUERIES = 10
"""Minimum number of judged queries for fitting."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """Settings fitted on one half of the queries, and the figures of the other half."""

    settings: ModelSettings
    queries_fitted: int
    queries_reported: int
    before: Point
    after: Point
    curve: tuple[Point, ...]
    """Figures of the reported half at each weight."""
    calibration_error: float
    brier: float
    base_rate: float

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serialisable dict."""
        return {
            "weight": self.settings.weight,
            "queries fitted": self.queries_fitted,
            "queries reported": self.queries_reported,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "curve": [asdict(point) for point in self.curve],
            "calibration": {
                "method": self.settings.calibration.method if self.settings.calibration else None,
                "expected error": round(self.calibration_error, 4),
                "Brier": round(self.brier, 4),
                "share relevant": round(self.base_rate, 4),
            },
        }


def score_rankings(model: CrossEncoder, rankings: Iterable[Ranking]) -> tuple[list[Scores], float]:
    """Return the logits of each query's candidates, (n,), and milliseconds per pair. Raises InferenceError."""
    found, seconds = [], 0.0
    for ranking in rankings:
        began = time.perf_counter()
        logits = model.score(ranking.query, ranking.texts).logits
        seconds += time.perf_counter() - began
        found.append(np.asarray(logits, np.float64))
    return found, 1000.0 * seconds / max(1, sum(map(len, found)))


def grades_of(ranking: Ranking, qrels: Qrels) -> tuple[Scores, float]:
    """Return the grades of a query's candidates, (n,), and its ideal DCG: 0 if nothing is judged relevant."""
    grades = qrels.get(ranking.query_id, {})
    return np.array([grades.get(item.id, 0) for item in ranking.candidates], np.float64), ideal_dcg(grades.values())


def judge(ranking: Ranking, logits: Scores, grades: Scores, ideal: float) -> JudgedQuery:
    """Return a scored query with its grades."""
    return judged_query(ranking.query_id, np.array(ranking.scores, np.float64), logits, grades, ideal)


def score_all(
    model: CrossEncoder,
    rankings: Sequence[Ranking],
    qrels: Qrels,
    *,
    depth: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[JudgedQuery], float]:
    """Score the first `depth` candidates of every judged query.

    Returns:
        The judged queries (those with a grade above 0), and milliseconds per pair.

    Raises:
        DataError: no query of the candidates is judged.
        InferenceError: the model failed.
    """
    graded = [(ranking.first(depth), *grades_of(ranking.first(depth), qrels)) for ranking in rankings]
    judged = [item for item in graded if item[2]]
    if not judged:
        mine = rankings[0].query_id if rankings else ""
        theirs = next(iter(qrels), "")
        raise DataError(
            f"none of the {len(rankings)} queries has a judgement above 0: the candidates name such as {mine!r}, "
            f"the judgements such as {theirs!r}; the ids must be the same"
        )
    progress(len(rankings) - len(judged))

    def reported() -> Iterator[Ranking]:
        for ranking, _, _ in judged:
            yield ranking
            progress(1)

    logits, ms = score_rankings(model, reported())
    return [judge(item[0], mine, *item[1:]) for item, mine in zip(judged, logits, strict=True)], ms


def fit(queries: Sequence[JudgedQuery], settings: ModelSettings, *, method: Method, seed: int = 0) -> FitReport:
    """Fit on half of the queries (by the hash of their ids and `seed`), report on the other half.

    Raises:
    TooFewJudgements: there are too few judged queries, or all candidates are relevant, or none.
    """
    if len(queries) < _MIN_QUERIES:
        raise TooFewJudgements(f"{len(queries)} judged queries, at least {_MIN_QUERIES} are needed: judge more queries")
    ordered = sorted(queries, key=lambda item: hashlib.blake2b(f"{seed}\0{item.query_id}".encode()).digest())
    first, second = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
    fitted = fit_settings(first, settings, method=method)
    points = curve(second, fitted)
    (after,) = curve(second, fitted, np.array([fitted.weight]))
    probability, relevant = _concatenate(second, fitted)
    return FitReport(
        fitted,
        len(first),
        len(second),
        points[0],
        after,
        tuple(points),
        calibration_error(probability, relevant),
        brier(probability, relevant),
        float(relevant.mean()),
    )


def fit_settings(queries: Sequence[JudgedQuery], settings: ModelSettings, *, method: Method) -> ModelSettings:
    """Return `settings` with calibration, bound and weight fitted on these queries. Raises TooFewJudgements."""
    logits = np.concatenate([item.logits for item in queries])
    relevant = np.concatenate([item.grades >= 1 for item in queries])
    calibration = fit_platt(logits, relevant) if method == "platt" else fit_isotonic(logits, relevant)
    fused = np.concatenate([item.fused for item in queries])
    fitted = replace(settings, calibration=calibration, bound=fit_bound(fused, calibration.probability(logits)))
    return replace(fitted, weight=best_weight(curve(queries, fitted)))


def evaluate(
    folder: Path,
    rankings: Sequence[Ranking],
    qrels: Qrels,
    *,
    depth: int = 20,
    method: Method = "platt",
    seed: int = 0,
    threads: int = 0,
    write: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measure the model in `folder`; with `write`, save the fitted settings in its ``reranker.json``.

    Raises:
        ModelFolderError: the folder is unusable.
        DataError, TooFewJudgements: as `score_all` and `fit`.
    """
    from reranker.cross_encoder import CrossEncoder

    settings = load_settings(folder)
    queries, ms = score_all(CrossEncoder(folder, threads=threads), rankings, qrels, depth=depth, progress=progress)
    as_it_is = curve(queries, settings)
    (now,) = curve(queries, settings, np.array([settings.weight]))
    fitted = fit(queries, settings, method=method, seed=seed)
    if write:
        write_settings(folder, fitted.settings)
    return {
        "model": settings.name,
        "precision": settings.precision,
        "queries": len(queries),
        "reranked candidates": depth,
        "ms per pair": round(ms, 3),
        "as the folder is": {
            "weight": settings.weight,
            "before": asdict(as_it_is[0]),
            "after": asdict(now),
            "alone": asdict(as_it_is[-1]),
        },
        "fitted": fitted.as_dict(),
        "written": write,
    }


def _concatenate(queries: Sequence[JudgedQuery], settings: ModelSettings) -> tuple[Scores, npt.NDArray[np.bool_]]:
    probability = settings.probability(np.concatenate([item.logits for item in queries]))
    return probability, np.concatenate([item.grades >= 1 for item in queries])
