"""`braid-reranker evaluate`: what a model gains over the first stage, at which weight, and what its scores mean.

Calibration, bound and weight are fitted on one half of the judged queries and reported on the other half.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reranker.fitting import (
    Judged,
    Method,
    NothingJudged,
    Point,
    best_weight,
    brier,
    calibration_error,
    curve,
    fit_bound,
    fit_isotonic,
    fit_platt,
    judged,
)
from reranker.measures import ideal_dcg
from reranker.model_folder import ModelSettings, load_settings, write_settings
from reranker.rankings import DataError, Qrels, Ranking

Scores = npt.NDArray[np.float64]
_FEW = 10
"""Judged queries below which nothing is fitted."""


class Model(Protocol):
    """The part of `CrossEncoder` that measuring needs."""

    def score(self, query: str, documents: Sequence[str]) -> Any:
        """With ``logits``, (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What half of the queries gave, and how the other half fares with it."""

    settings: ModelSettings
    queries_fitted: int
    queries_reported: int
    before: Point
    after: Point
    curve: tuple[Point, ...]
    """Of the reported half."""
    calibration_error: float
    brier: float
    base_rate: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
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


def score_all(
    model: Model,
    rankings: Sequence[Ranking],
    qrels: Qrels,
    *,
    depth: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Judged], float]:
    """Score the first `depth` candidates of every judged query.

    Returns:
        The judged queries (those with a grade above 0), and milliseconds per pair.

    Raises:
        DataError: no query of the candidates is judged.
        InferenceError: the model failed.
    """
    found: list[Judged] = []
    pairs, seconds = 0, 0.0
    for ranking in rankings:
        grades = qrels.get(ranking.query_id, {})
        ideal = ideal_dcg(grades.values())
        if ideal:
            candidates = ranking.candidates[:depth]
            began = time.perf_counter()
            logits = model.score(ranking.query, [item.text for item in candidates]).logits
            seconds += time.perf_counter() - began
            pairs += len(candidates)
            found.append(
                judged(
                    ranking.query_id,
                    np.array([item.score for item in candidates], np.float64),
                    np.asarray(logits, np.float64),
                    np.array([grades.get(item.id, 0) for item in candidates], np.float64),
                    ideal,
                )
            )
        progress(1)
    if not found:
        mine = rankings[0].query_id if rankings else ""
        theirs = next(iter(qrels), "")
        raise DataError(
            f"none of the {len(rankings)} queries has a judgement above 0: the candidates name such as {mine!r}, "
            f"the judgements such as {theirs!r}; the ids must be the same"
        )
    return found, 1000.0 * seconds / max(1, pairs)


def fit(queries: Sequence[Judged], settings: ModelSettings, *, method: Method, seed: int = 0) -> Fitted:
    """Fit on half of the queries (by the hash of their ids and `seed`), report on the other half.

    Raises:
        NothingJudged: too few judged queries, or candidates that are all relevant, or none.
    """
    if len(queries) < _FEW:
        raise NothingJudged(f"{len(queries)} judged queries: at least {_FEW} are needed to fit on half of them")
    ordered = sorted(queries, key=lambda item: hashlib.blake2b(f"{seed}\0{item.query_id}".encode()).digest())
    first, second = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
    fitted = fit_settings(first, settings, method=method)
    points = curve(second, fitted)
    (after,) = curve(second, fitted, np.array([fitted.weight]))
    probability, relevant = _flat(second, fitted)
    return Fitted(
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


def fit_settings(queries: Sequence[Judged], settings: ModelSettings, *, method: Method) -> ModelSettings:
    """`settings` with calibration, bound and weight as these queries have them. Raises NothingJudged."""
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
    """Measure the model in `folder`; with `write`, leave what was fitted in its ``reranker.json``.

    Raises:
        ModelFolderError: the folder can't be used.
        DataError, NothingJudged: as `score_all` and `fit`.
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


def _flat(queries: Sequence[Judged], settings: ModelSettings) -> tuple[Scores, npt.NDArray[np.bool_]]:
    probability = settings.probability(np.concatenate([item.logits for item in queries]))
    return probability, np.concatenate([item.grades >= 1 for item in queries])
