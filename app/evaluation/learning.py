"""Training of the model that predicts a query's fusion weight (`app.search.weighting`).

There are no labels for a query's best weight, but the quality of the ranking can be measured at each weight. The
training maximises that directly: with the dense share sigmoid(w x + b), it maximises the mean over queries of the
measure at that share. Each query's curve is smoothed and linear between its points. A penalty draws w to its start: to
zero (the best fixed weight), or to a model trained on other collections, from which a small collection then deviates
only as far as its judgements support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.search.weighting import FEATURES, standardise
from app.tuning import Normalization, WeightModel

Array = npt.NDArray[np.float64]

GRID: Array = np.round(np.linspace(0.0, 1.0, 21), 2)
"""Dense shares at which the curves are measured."""
PENALTY = 0.003
"""Penalty on the coefficients of standardised features; chosen by leave-one-collection-out (benchmarks/fusion.md)."""
TRANSFER_PENALTY = 0.03
"""Penalty towards a model of other collections, for 300 queries; it falls with the number of queries."""
_SMOOTHING = 2.0
"""Standard deviation, in grid points, of the Gaussian that smooths a curve: NDCG of one query is a step function."""
_BOOTSTRAP = 40


@dataclass(frozen=True, slots=True)
class Examples:
    """Training data: features (n, len(FEATURES)), curves (n, len(GRID)) in 0..1, and a weight for each query."""

    features: Array
    curves: Array
    weights: Array

    @classmethod
    def of(cls, features: Sequence[Array], curves: Sequence[Array]) -> Examples:
        """Create examples with equal weights."""
        return cls(np.asarray(features, np.float64), np.asarray(curves, np.float64), np.full(len(features), 1.0))

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Examples:
        return Examples(self.features[rows], self.curves[rows], self.weights[rows])

    def __len__(self) -> int:
        return len(self.features)


def join(collections: Sequence[Examples]) -> Examples:
    """Join several collections with equal total weight, whatever their numbers of queries."""
    return Examples(
        np.concatenate([item.features for item in collections]),
        np.concatenate([item.curves for item in collections]),
        np.concatenate([item.weights / item.weights.sum() for item in collections]),
    )


def best_fixed(examples: Examples) -> float:
    """Return the best dense share common to all queries."""
    return float(GRID[int((examples.weights @ examples.curves).argmax())])


def value_at(curves: Array, shares: Array | float) -> Array:
    """Return the measure of each query at its dense share, shape (n,); linear between grid points."""
    return _interpolate(curves, np.broadcast_to(np.asarray(shares, np.float64), len(curves)))[0]


def fit(
    examples: Examples,
    *,
    embedding_model: str,
    normalization: Normalization,
    start: WeightModel | None = None,
    penalty: float | None = None,
    about: dict[str, Any] | None = None,
    seed: int = 0,
    bootstrap: int | None = None,
) -> WeightModel:
    """Train a model.

    Args:
        embedding_model: model of the scores; the weight model is used with no other.
        normalization: normalisation with which the curves were measured.
        start: a model of other collections to start from; its standardisation is kept.
        penalty: on the distance to the start; None: `PENALTY`, or `TRANSFER_PENALTY` with a start.
        bootstrap: number of samples for the covariance; None: enough for a model that is kept; 0: none, for a model
            that is only measured.
    """
    weights = examples.weights / examples.weights.sum()
    if start is None:
        mean = weights @ examples.features
        scale = np.sqrt(weights @ (examples.features - mean) ** 2)
        scale = np.where(scale > 1e-9, scale, 1.0)
        share = best_fixed(examples)
        centre = np.append(np.zeros(len(FEATURES)), np.log((share + 0.02) / (1.02 - share)))
        strength = PENALTY if penalty is None else penalty
    else:
        mean, scale, centre = np.array(start.mean), np.array(start.scale), np.array(start.coefficients)
        strength = (TRANSFER_PENALTY if penalty is None else penalty) * 300 / len(examples)
    standard = standardise(examples.features, mean, scale)
    rows = np.column_stack([standard, np.ones(len(examples))])
    smooth = _smooth(examples.curves)
    coefficients = _maximise(rows, smooth, weights, centre, strength)
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(_BOOTSTRAP if bootstrap is None else bootstrap):
        drawn = random.choice(len(examples), len(examples))
        again = weights[drawn] / weights[drawn].sum()
        samples.append(_maximise(rows[drawn], smooth[drawn], again, centre, strength))
    covariance = np.cov(np.array(samples).T) if samples else np.zeros((len(coefficients), len(coefficients)))
    return WeightModel(
        features=FEATURES,
        mean=_numbers(mean),
        scale=_numbers(scale),
        coefficients=_numbers(coefficients),
        covariance=tuple(_numbers(row) for row in covariance),
        embedding_model=embedding_model,
        normalization=normalization,
        about=about or {},
    )


def shares_of(model: WeightModel, features: Array) -> Array:
    """Return the model's prediction for each row of `features`, shape (n,)."""
    standard = standardise(features, model.mean, model.scale)
    return _logistic(standard @ np.array(model.coefficients[:-1]) + model.coefficients[-1])


def _maximise(rows: Array, curves: Array, weights: Array, centre: Array, penalty: float) -> Array:
    from scipy.optimize import minimize

    penalties = np.append(np.full(len(centre) - 1, penalty), penalty / 30)

    def loss(coefficients: Array) -> tuple[float, Array]:
        shares = _logistic(rows @ coefficients)
        values, slopes = _interpolate(curves, shares)
        gradient = -(weights * slopes * shares * (1.0 - shares)) @ rows
        away = coefficients - centre
        return float(-(weights @ values) + penalties @ (away * away)), gradient + 2 * penalties * away

    found: Array = minimize(loss, centre, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return found


def _logistic(logits: Array) -> Array:
    from scipy.special import expit  # a step of the search may overshoot

    shares: Array = expit(logits)
    return shares


def _interpolate(curves: Array, shares: Array) -> tuple[Array, Array]:
    """Return values and slopes of each curve at its share."""
    steps = len(GRID) - 1
    place = np.clip(shares, 0.0, 1.0) * steps
    left = np.minimum(place.astype(int), steps - 1)
    row = np.arange(len(curves))
    low, high = curves[row, left], curves[row, left + 1]
    return low + (high - low) * (place - left), (high - low) * steps


def _smooth(curves: Array) -> Array:
    reach = 6
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curves, ((0, 0), (reach, reach)), mode="edge")
    return np.array([np.convolve(row, kernel, mode="valid") for row in padded])


def _numbers(values: Array) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
