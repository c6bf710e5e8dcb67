"""Which numbers of a search a caller is shown: none that depends on passages which it may not see.

BM25 counts how often a word occurs in all passages of a shard, whoever may read them. From such a score, or from
anything computed with one, who may add passages of its own could compute how many others hold a word. So only callers
that see their whole tenant (admins, the operator) are shown it; others get the order, as 1 / place, and what the vector
leg and the reranker gave, which depend on the query and the passage alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.api import schemas
from app.passage import Hit
from app.search.service import SearchResult
from app.search.weighting import Weight
from app.store.filters import Scope

_WITHHELD = "it was looked for in the scores of both legs, which admins are shown"


@dataclass(frozen=True, slots=True)
class ShownScores:
    """The scores of one search as a caller is shown them."""

    found: SearchResult
    whole: bool

    @classmethod
    def to(cls, scope: Scope, found: SearchResult) -> ShownScores:
        """As the caller with this scope is shown them."""
        return cls(found, scope.principals is None)

    def score(self, hit: Hit, place: int) -> float:
        """What orders the results; `place` is the hit's, from 1."""
        return hit.score if self.whole or self.found.plan.way == "dense" else 1 / place

    def stages(self, hit: Hit) -> schemas.Scores:
        """What each stage gave."""
        return schemas.Scores(
            lexical=hit.lexical if self.whole else None,
            dense=hit.dense,
            fused=hit.fused if self.whole else None,
            rerank=hit.rerank,
            reranker=self.found.rerank.reranker if self.found.rerank is not None and hit.rerank is not None else None,
        )

    def weight(self, weight: Weight) -> dict[str, Any]:
        """The dense share, and where it comes from; one that was looked for in scores is as telling as they are."""
        told = self.whole or weight.features is None
        return {
            "alpha": weight.alpha if told or weight.source != "learned" else None,
            "weight": weight.source,
            "weight_reason": weight.reason if told else _WITHHELD,
            "features": weight.features if told else None,
        }
