"""Rankings of documents from collected legs at any weight: the service's fusion, repeated many times.

`NormalizedLegs` holds a query's normalised scores, so that another weight costs an addition and a sort. A test checks
that the order is that of `app.search.fusion`, including ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.evaluation.collect import QueryLegs
from app.passage import Candidate
from app.search.fusion import FusedCandidate, bonus_scale, fuse_rrf, normalise, rank_alone
from app.tuning import Normalization

Array = npt.NDArray[np.float64]

DEEPEST = 100
"""Depth of a measured ranking: Recall@100 reads no further."""


def documents_of(ranked: Sequence[FusedCandidate | Candidate], most: int = DEEPEST) -> list[str]:
    """Return the documents of ranked passages, each at the rank of its best passage."""
    return list(dict.fromkeys(item.document_id for item in ranked))[:most]


def rrf_ranking(legs: QueryLegs, rank_constant: int) -> list[str]:
    """Return the documents in the order of reciprocal rank fusion."""
    return documents_of(fuse_rrf(legs.lexical, legs.dense, rank_constant, bonus=legs.bonus))


def single_rankings(legs: QueryLegs) -> tuple[list[str], list[str]]:
    """Return the documents in the order of the lexical leg (exact matches first, as in the service) and of the dense
    leg.
    """
    return documents_of(rank_alone(legs.lexical, "lexical", legs.bonus)), documents_of(legs.dense)


@dataclass(frozen=True, slots=True)
class NormalizedLegs:
    """One query's candidates: documents, and each leg's normalised scores, shape (n,), in the order of the ids."""

    documents: tuple[str, ...]
    lexical: Array
    dense: Array
    bonus: Array

    @classmethod
    def of(cls, legs: QueryLegs, normalization: Normalization, depth: int | None = None) -> NormalizedLegs:
        """Normalise the legs, cut at `depth` candidates each."""
        left, right = legs.lexical[:depth], legs.dense[:depth]
        documents = {item.id: item.document_id for item in (*left, *right)}
        ids = sorted(documents, key=lambda key: (-legs.bonus.get(key, 0.0), key))  # the service's order of equal scores
        scored = (
            normalise([item.score for item in left], normalization, "lexical"),
            normalise([item.score for item in right], normalization, "dense"),
        )
        return cls(
            tuple(documents[key] for key in ids),
            _column(ids, left, *scored[0]),
            _column(ids, right, *scored[1]),
            bonus_scale(*scored) * np.array([legs.bonus.get(key, 0.0) for key in ids]),
        )

    def ranking(self, alpha: float, most: int = DEEPEST) -> list[str]:
        """Return documents, best first, at the dense share `alpha`; ties by passage id."""
        scores = (1.0 - alpha) * self.lexical + alpha * self.dense + self.bonus
        order = np.argsort(-scores, kind="stable")
        found: dict[str, None] = {}
        for place in order:
            found[self.documents[place]] = None
            if len(found) == most:
                break
        return list(found)


def normalize_all(
    legs: Mapping[str, QueryLegs], normalization: Normalization, depth: int | None = None
) -> dict[str, NormalizedLegs]:
    """Return the `NormalizedLegs` of each query."""
    return {query_id: NormalizedLegs.of(item, normalization, depth) for query_id, item in legs.items()}


def _column(ids: Sequence[str], leg: Sequence[Candidate], values: Array, absent: float) -> Array:
    known = dict(zip((item.id for item in leg), values.tolist(), strict=True))
    return np.array([known.get(key, absent) for key in ids], np.float64)
