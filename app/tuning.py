"""A tuning: the result of `braid tune`, with which a service searches; a frozen value stored with its history in the
cluster.

A tuning is data: JSON in, JSON out, nothing executable. `store.tunings` reads and writes it; `search` applies it.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Normalization = Literal["min_max", "z_score", "l2"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Boost = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Boosts(_Value):
    """Weights of matches in the lexical leg, in addition to BM25 over the whole passage (weight 1).

    `phrase` is for two adjacent query words that are adjacent in the passage (sequential dependence: Metzler and Croft,
    SIGIR 2005), `codes` for a verbatim identifier, `quoted` for a phrase in quotation marks. Measured on five
    collections: benchmarks/fusion.md.
    """

    title: Boost = 0.1
    heading: Boost = 0.1
    phrase: Boost = 0.3
    codes: Boost = 1.0
    quoted: Boost = 3.0


class Bm25(_Value):
    """Parameters of the similarity ``braid_bm25``."""

    k1: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.2
    b: Share = 0.75


class WeightModel(_Value):
    """A logistic model of the dense share: sigmoid of a weighted sum of standardised features, and its uncertainty.

    `covariance` is that of `coefficients` (the intercept last) over bootstrap samples; `features` names the columns.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    embedding_model: str
    normalization: Normalization
    about: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_shape(self) -> WeightModel:
        columns = len(self.features)
        if len(self.mean) != columns or len(self.scale) != columns or len(self.coefficients) != columns + 1:
            raise ValueError(f"{columns} features need as many means and scales, and one coefficient more")
        if len(self.covariance) != columns + 1 or any(len(row) != columns + 1 for row in self.covariance):
            raise ValueError(f"the covariance of {columns + 1} coefficients is square")
        numbers = (*self.mean, *self.scale, *self.coefficients, *(cell for row in self.covariance for cell in row))
        if not all(map(math.isfinite, numbers)) or not all(scale > 0 for scale in self.scale):
            raise ValueError("means, scales, coefficients and covariance are finite, and scales above 0")
        return self


class RerankTuning(_Value):
    """The reranker's share in the final score and its number of candidates, as measured for one reranker."""

    reranker: str
    weight: Share
    depth: Annotated[int, Field(ge=1, le=1000)]


class Tuning(_Value):
    """All measured settings of fusion. `version` 0 is the shipped tuning."""

    version: Annotated[int, Field(ge=0)] = 0
    alpha: Share = 0.4
    normalization: Normalization = "min_max"
    candidates: Annotated[int, Field(ge=10, le=1000)] = 100
    boosts: Boosts = Boosts()
    bm25: Bm25 = Bm25()
    weight_model: WeightModel | None = None
    """None: the shipped model, if it was trained for this embedding model."""
    learned: bool = True
    """Whether the weight of each query is predicted; False if the fixed weight was measured to be better."""
    native_alpha: Share = 0.4
    """The best dense share for min-max with the cluster's own pipeline, which every client may use."""
    rerank: RerankTuning | None = None
    """None, or for another reranker than the service's: the reranker's own values."""
    about: dict[str, Any] = {}
    """Data, date and figures that the choice is based on."""


SHIPPED = Tuning()
