"""Values passed between the stages of a search: `SearchCall` -> `Candidates` -> `Ranking` -> `ResultPage`.

All are frozen. Each stage makes the next value from the previous one; none changes its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.deadline import Deadline
from app.features import ALL_ON, Features
from app.passage import Hit
from app.querytext import QueryText
from app.search.fusion import FusedCandidate
from app.search.plan import LEGS, Plan
from app.search.request import SearchRequest
from app.search.reranking import Stop
from app.search.weighting import Weight
from app.store.filters import Clause, Scope
from app.store.queries import Body
from app.store.responses import Leg, Total
from app.tuning import Tuning


@dataclass(frozen=True, slots=True)
class SearchCall:
    """One search and its limits."""

    request: SearchRequest
    query: QueryText
    tuning: Tuning
    deadline: Deadline
    filters: list[Clause]
    depth: int
    features: Features = ALL_ON
    partition: str | None = None
    """Name of the callers with whom this request shares cached vectors and scores; None: with nobody."""
    checked_for: Scope | None = None
    """Scope for which heads are read before passages are shown; None: passages are shown as found."""
    legs: Deadline | None = None
    """Deadline of the legs, which leaves time for the page. None: all remaining time."""
    reach: int = 0
    """Number of candidates that the native way returns; 0: not yet known."""
    lexical_factor: float = 1.0
    """Lexical scores are multiplied with it, so that they are on the same scale on every version of OpenSearch."""
    same_copies: str | None = None
    """OpenSearch's `preference`: the shard copies to use, so that all requests see the same writes."""

    @property
    def window(self) -> int:
        """Number of candidates up to the end of the page."""
        return self.request.from_ + self.request.size

    def deadline_of(self, stage: str) -> Deadline:
        """Return the deadline of a stage."""
        return self.legs if self.legs is not None and stage != "fetch" else self.deadline

    def leg_deadline(self) -> Deadline:
        """Return the deadline of legs that begin now."""
        return self.deadline.part(LEGS)


@dataclass(frozen=True, slots=True)
class Passages:
    """Passages that were read, by id.

    `vanished`: ids that were deleted before they were read.
    """

    hits: Mapping[str, Hit] = field(default_factory=dict)
    vanished: frozenset[str] = frozenset()

    def joined(self, hits: Iterable[Hit], vanished: Iterable[str]) -> Passages:
        """Return these passages and others."""
        return Passages({**self.hits, **{hit.id: hit for hit in hits}}, self.vanished.union(vanished))


@dataclass(frozen=True, slots=True)
class NativeFusion:
    """Fusion by the cluster: a search pipeline, by its name or as a body, and its weight; None for RRF."""

    pipeline: str | Body
    weight: Weight | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates and the plan that found them. `native`: passages, best first, that the cluster fused with
    `native_weight`.

    `total` counts the matches, each once. `encoded`: the reranker's part of the inference that embedded the query.
    """

    plan: Plan
    total: Total
    lexical: Leg | None = None
    dense: Leg | None = None
    native: tuple[Hit, ...] | None = None
    native_weight: Weight | None = None
    encoded: object | None = None

    @property
    def corrected(self) -> tuple[str, ...]:
        """Words of the query that were matched with typing errors."""
        return self.lexical.corrected if self.lexical is not None else ()


@dataclass(frozen=True, slots=True)
class RerankOutcome:
    """Outcome of the reranker: `scored` of the first `of` candidates, blended with `weight`, and why it `stopped`."""

    reranker: str
    weight: float
    scored: int
    of: int
    stopped: Stop | Literal["decisive"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The candidates in their `order`, best first; `fused`: all of them before reranking.

    `weight` is that of linear fusion. `exact`: identifiers that counted as found. `rerank`: None without reranking.
    `passages`: those read so far.
    """

    found: Candidates
    fused: Sequence[FusedCandidate]
    order: Sequence[FusedCandidate]
    weight: Weight | None = None
    exact: tuple[str, ...] = ()
    rerank: RerankOutcome | None = None
    passages: Passages = field(default_factory=Passages)


@dataclass(frozen=True, slots=True)
class ResultPage:
    """The shown `hits` of `ranking`, best first. `folded`: passage id -> ids of its near-duplicates.

    `highlights`: passage id -> field -> fragments. `short`: the candidates did not fill the page, because some are
    hidden. `outdated`: documents were replaced during the search, so that it may have missed their passages.
    """

    ranking: Ranking
    hits: tuple[Hit, ...]
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    highlights: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    short: bool = False
    outdated: bool = False
