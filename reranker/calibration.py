"""Calibration: maps a logit to a probability of relevance, so that thresholds have a meaning."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_CONFIG = ConfigDict(extra="forbid")


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x), without overflow."""
    small = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return result


def _ascending(values: tuple[float, ...]) -> bool:
    return all(left <= right for left, right in pairwise(values))


@dataclass(frozen=True, config=_CONFIG)
class Platt:
    """Platt scaling, p = sigmoid(a * logit + b): J. Platt, "Probabilistic Outputs for Support
    Vector Machines", 1999."""

    a: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    b: Finite
    method: Literal["platt"] = "platt"

    def probability(self, logits: npt.NDArray[np.floating]) -> Floats:
        """Return the probability of each logit, shape (n,)."""
        return sigmoid(self.a * np.asarray(logits, np.float64) + self.b)


@dataclass(frozen=True, config=_CONFIG)
class Isotonic:
    """Isotonic calibration: piecewise linear through (x, y), flat beyond both ends.

    B. Zadrozny, C. Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", 2002.
    """

    x: Annotated[tuple[Finite, ...], Field(min_length=1)]
    y: Annotated[tuple[Share, ...], Field(min_length=1)]
    method: Literal["isotonic"] = "isotonic"

    @model_validator(mode="after")
    def _consistent(self) -> Isotonic:
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} values and y {len(self.y)}: they must be pairs")
        if not _ascending(self.x) or not _ascending(self.y):
            raise ValueError("x and y must both ascend")
        return self

    def probability(self, logits: npt.NDArray[np.floating]) -> Floats:
        """Return the probability of each logit, shape (n,)."""
        values: Floats = np.interp(np.asarray(logits, np.float64), self.x, self.y)
        return values


Calibration = Annotated[Platt | Isotonic, Field(discriminator="method")]


@dataclass(frozen=True, config=_CONFIG)
class Bound:
    """Upper bound of a passage's probability as a piecewise linear function of its min-max normalised fused score."""

    fused: Annotated[tuple[Share, ...], Field(min_length=1)]
    p: Annotated[tuple[Share, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Bound:
        if len(self.fused) != len(self.p):
            raise ValueError(f"fused has {len(self.fused)} values and p {len(self.p)}: they must be pairs")
        if not _ascending(self.fused):
            raise ValueError("fused must ascend")
        return self

    def probability(self, fused: npt.NDArray[np.floating]) -> Floats:
        """Return the upper bound at each fused score, shape (n,)."""
        values: Floats = np.interp(np.asarray(fused, np.float64), self.fused, self.p)
        return values
