"""Fitting of calibration, bound and weight of `reranker.json` from scored and judged candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reranker.calibration import Bound, Isotonic, Platt, sigmoid
from reranker.errors import RerankerError
from reranker.measures import min_max, mrr, ndcg
from reranker.model_folder import ModelSettings

Scores = npt.NDArray[np.float64]
Method = Literal["platt", "isotonic"]

WEIGHTS: Scores = np.round(np.linspace(0.0, 1.0, 21), 2)
BOUND_SHARE = 0.995
"""Share of candidates with a similar fused score whose probability lies below the bound."""
_BINS = 10
_KNOTS = 64
_NDCG_TOLERANCE = 0.0005
"""NDCG difference to ignore: among weights this close to the best, the smallest one is the safest."""


class TooFewJudgements(RerankerError):
    """There are no judgements, or only of one class, so that nothing can be fitted."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query's candidates, (n,) each: min-max normalised fused scores, the model's logits, grades.

    `ideal` is the best DCG@10 that the judgements allow (over all judged documents, found or not).
    """

    query_id: str
    fused: Scores
    logits: Scores
    grades: Scores
    ideal: float


@dataclass(frozen=True, slots=True)
class Point:
    """Mean figures over queries at one weight."""

    weight: float
    ndcg: float
    mrr: float


def final_scores(fused: Scores, probability: Scores, weight: float) -> Scores:
    """Return the final scores, (n,): `weight` times the reranker's probability plus the rest of the fused score."""
    found: Scores = (1.0 - weight) * fused + weight * probability
    return found


def curve(judged_queries: Sequence[JudgedQuery], settings: ModelSettings, weights: Scores = WEIGHTS) -> list[Point]:
    """Return NDCG@10 and MRR@10 at each weight; weight 0 is the first stage, weight 1 the reranker alone."""
    probabilities = [settings.probability(item.logits) for item in judged_queries]
    points = []
    for weight in weights.tolist():
        values = [
            (ndcg(final, item.grades, item.ideal), mrr(final, item.grades))
            for item, p in zip(judged_queries, probabilities, strict=True)
            for final in (final_scores(item.fused, p, weight),)
        ]
        points.append(Point(weight, *(float(value) for value in np.mean(values, axis=0))))
    return points


def best_weight(points: Sequence[Point]) -> float:
    """Return the smallest weight whose NDCG@10 is within half a thousandth of the best."""
    best = max(point.ndcg for point in points)
    return next(point.weight for point in points if point.ndcg >= best - _NDCG_TOLERANCE)


def fit_platt(logits: Scores, relevant: npt.NDArray[np.bool_]) -> Platt:
    """Fit slope and intercept by maximum likelihood with Platt's smoothed targets; the slope stays above 0.

    Raises:
        TooFewJudgements: all candidates are relevant, or none.
    """
    from scipy.optimize import minimize

    positive, negative = int(relevant.sum()), int((~relevant).sum())
    _check(positive, negative)
    targets = np.where(relevant, (positive + 1) / (positive + 2), 1 / (negative + 2))
    middle, scale = float(logits.mean()), float(logits.std()) or 1.0
    standard = (logits - middle) / scale

    def loss(parameters: Scores) -> tuple[float, Scores]:
        slope = np.exp(parameters[0])
        z = slope * standard + parameters[1]
        value = float(np.mean(np.logaddexp(0.0, z) - targets * z))
        error = sigmoid(z) - targets
        return value, np.array([np.mean(error * standard) * slope, np.mean(error)])

    start = np.array([0.0, np.log(positive / negative)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-6.0, 6.0), (-50.0, 50.0)]).x
    slope = float(np.exp(found[0])) / scale
    return Platt(a=slope, b=float(found[1]) - slope * middle)


def fit_isotonic(logits: Scores, relevant: npt.NDArray[np.bool_]) -> Isotonic:
    """Fit isotonic regression to the labels, reduced to at most `_KNOTS` points of a piecewise linear function.

    Raises:
        TooFewJudgements: all candidates are relevant, or none.
    """
    from scipy.optimize import isotonic_regression

    _check(int(relevant.sum()), int((~relevant).sum()))
    order = np.argsort(logits, kind="stable")
    x, fitted = logits[order], isotonic_regression(relevant[order].astype(np.float64)).x
    # a block of equal values becomes one point at the mean of its logits
    blocks = np.split(np.arange(len(x)), np.flatnonzero(np.diff(fitted) > 0) + 1)
    points = [(float(x[block].mean()), float(fitted[block[0]])) for block in blocks]
    if len(points) > _KNOTS:
        points = [points[index] for index in np.linspace(0, len(points) - 1, _KNOTS).round().astype(int)]
    return Isotonic(x=tuple(value for value, _ in points), y=tuple(min(1.0, max(0.0, value)) for _, value in points))


def fit_bound(fused: Scores, probability: Scores) -> Bound:
    """Fit the upper bound of probability by fused score, in `_BINS` bins of equally many candidates.

    Each knot takes the larger of its own and its neighbours' quantiles, so that the line lies above both.
    """
    edges = np.unique(np.quantile(fused, np.linspace(0.0, 1.0, _BINS + 1)))
    if len(edges) < 2:
        return Bound(fused=(0.0,), p=(1.0,))
    places = np.clip(np.searchsorted(edges, fused, side="right") - 1, 0, len(edges) - 2)
    quantiles = np.array(
        [
            np.quantile(probability[places == index], BOUND_SHARE) if (places == index).any() else 0.0
            for index in range(len(edges) - 1)
        ]
    )
    near = np.concatenate([[quantiles[0]], quantiles, [quantiles[-1]]])
    at_edges = np.maximum(near[:-1], near[1:])
    return Bound(fused=tuple(np.clip(edges, 0, 1).tolist()), p=tuple(np.clip(at_edges, 0, 1).tolist()))


def calibration_error(probability: Scores, relevant: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error over `bins` bins of equally many candidates, 0..1; 0 is perfect."""
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [
        (len(part), abs(float(probability[part].mean()) - float(relevant[part].mean()))) for part in parts if len(part)
    ]
    return sum(count * gap for count, gap in gaps) / sum(count for count, _ in gaps)


def brier(probability: Scores, relevant: npt.NDArray[np.bool_]) -> float:
    """Return the Brier score: mean squared error of the probability, 0..1."""
    return float(np.mean((probability - relevant) ** 2))


def judged_query(query_id: str, first_stage: Scores, logits: Scores, grades: Scores, ideal: float) -> JudgedQuery:
    """Return a query's candidates with the first stage's scores normalised to 0..1."""
    return JudgedQuery(query_id, min_max(first_stage), np.asarray(logits, np.float64), grades, ideal)


def _check(positive: int, negative: int) -> None:
    if not positive or not negative:
        raise TooFewJudgements(
            f"{positive} relevant and {negative} other candidates: a calibration needs both: pass judgements with "
            "--qrels"
        )
