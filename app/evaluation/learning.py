"""Training of the model that predicts a query's fusion weight (`app.search.weighting`).

No label says what a query's weight should be; what can be measured is how good the ranking is at each weight. So the
model maximises that directly: with the dense share sigmoid(w x + b), the mean over queries of the measure's curve at
that share, the curve smoothed and linear between its points, less a penalty on w that draws it to where it starts: to
zero (the best fixed weight) or to a model trained on other collections, from which a small collection then learns only
what its judgements support.
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
"""On the coefficients of standardised features; chosen leaving one collection out (benchmarks/fusion.md)."""
TRANSFER_PENALTY = 0.03
"""The same towards a model of other collections, for 300 queries; it falls with their number."""
_SMOOTHING = 2.0
"""Standard deviation, in points of the grid, of the Gaussian that smooths a curve: NDCG of one query is a step."""
_BOOTSTRAP = 40


@dataclass(frozen=True, slots=True)
class Examples:
    """What is learned from: features (n, len(FEATURES)), curves (n, len(GRID)) in 0..1, and a weight for each query."""

    features: Array
    curves: Array
    weights: Array

    @classmethod
    def of(cls, features: Sequence[Array], curves: Sequence[Array]) -> Examples:
        """All queries alike."""
        return cls(np.asarray(features, np.float64), np.asarray(curves, np.float64), np.full(len(features), 1.0))

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Examples:
        return Examples(self.features[rows], self.curves[rows], self.weights[rows])

    def __len__(self) -> int:
        return len(self.features)


def together(collections: Sequence[Examples]) -> Examples:
    """Several collections, each counting the same whatever its number of queries."""
    return Examples(
        np.concatenate([item.features for item in collections]),
        np.concatenate([item.curves for item in collections]),
        np.concatenate([item.weights / item.weights.sum() for item in collections]),
    )


def best_fixed(examples: Examples) -> float:
    """The dense share that is best for all queries alike."""
    return float(GRID[int((examples.weights @ examples.curves).argmax())])


def value_at(curves: Array, shares: Array | float) -> Array:
    """The measure of each query at its dense share, shape (n,); between points of the grid linear."""
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
        examples: queries with their features and curves.
        embedding_model: whose scores they are; the model is used with no other.
        normalization: under which the curves were measured.
        start: a model of other collections to depart from; its standardisation is kept.
        penalty: on the distance to the start; None: `PENALTY`, or `TRANSFER_PENALTY` with a start.
        about: data, date, figures for the card.
        seed: of the bootstrap.
        bootstrap: samples from which the covariance comes; None: as many as a model that is kept needs; 0: none, for
            one that is only measured.
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
    """What the model predicts for each row of `features`, shape (n,)."""
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
    from scipy.special import expit  # for a step of the search that went too far too

    shares: Array = expit(logits)
    return shares


def _interpolate(curves: Array, shares: Array) -> tuple[Array, Array]:
    """Values and slopes of each curve at its share."""
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
