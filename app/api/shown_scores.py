"""Visible scores of a search: none that depends on passages which the caller can't see.

BM25 depends on the number of passages of a shard that contain a word, whoever can read them. From such a score, or from
anything computed with it, a caller that can add passages could compute how many others contain a word. So only callers
that see their whole tenant (admins, the operator) get it; others get the order, as 1 / place, and the scores of the
vector leg and the reranker, which depend on the query and the passage alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.passage import Hit
from app.search.service import SearchResult
from app.search.weighting import Weight
from app.store.filters import Scope

_WITHHELD = "learned from the scores of both legs, which only admins see"


@dataclass(frozen=True, slots=True)
class ShownScores:
    """The scores of one search that a caller may see."""

    found: SearchResult
    whole: bool

    @classmethod
    def to(cls, scope: Scope, found: SearchResult) -> ShownScores:
        """Return the scores visible to the caller with this scope."""
        return cls(found, scope.principals is None)

    def score(self, hit: Hit, place: int) -> float:
        """Return the score that orders the results; `place` is the hit's, from 1."""
        return hit.score if self.whole or self.found.plan.way == "dense" else 1 / place

    def stages(self, hit: Hit) -> dict[str, Any]:
        """Return the score of each stage: the fields of `api.schemas.Scores`."""
        rerank = self.found.rerank if hit.rerank is not None else None
        return {
            "lexical": hit.lexical if self.whole else None,
            "dense": hit.dense,
            "fused": hit.fused if self.whole else None,
            "rerank": hit.rerank,
            "reranker": rerank.reranker if rerank is not None else None,
        }

    def weight(self, weight: Weight) -> dict[str, Any]:
        """Return the dense share and its source; one that was derived from scores reveals as much as they do."""
        told = self.whole or weight.features is None
        return {
            "alpha": weight.alpha if told or weight.source != "learned" else None,
            "weight": weight.source,
            "weight_reason": weight.reason if told else _WITHHELD,
            "features": weight.features if told else None,
        }
