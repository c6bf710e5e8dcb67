"""The step from a query to the answer of a near-identical one: its vector, the gate, and a cross-encoder's word."""

from __future__ import annotations

from dataclasses import dataclass

from app.cache.near import NearQueries
from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, Overloaded, RerankerError
from app.features import Features
from app.search.cached_models import QueryVectors, Vector, partition_of
from app.search.request import SearchRequest
from app.search.rerankers import TextReranker
from app.store.filters import Scope

_SHARE = 0.2
"""Of what is left of the budget, for the cross-encoder."""
_SURE = 0.5
"""The probability that a cross-encoder must give to either query as a text about the other."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A query that may have been asked before in other words, and who asks it."""

    request: SearchRequest
    scope: Scope
    features: Features
    deadline: Deadline


class NearAnswers:
    """Finds keys of answers to near-identical queries. Thread-safe."""

    def __init__(self, queries: NearQueries, vectors: QueryVectors, reranker: TextReranker | None) -> None:
        """`reranker` is asked, too, where it is a cross-encoder."""
        self._queries = queries
        self._vectors = vectors
        self._reranker = reranker if reranker is not None and reranker.calibrated else None

    def vector(self, asking: Asking) -> Vector | None:
        """The query's vector, of the inference that its search would use; None where the encoder fails."""
        request, features = asking.request, asking.features
        reranked = features.rerank and (request.rerank is None or request.rerank is not False)
        partition = partition_of(asking.scope) if features.embedding_cache else None
        try:
            return self._vectors.encode(request.query, reranked=reranked, partition=partition)[0]
        except EncoderError:
            return None

    def find(self, bucket: str, query: str, vector: Vector, deadline: Deadline) -> str | None:
        """The key of an answer to a query of the bucket that asks the same, or None."""
        confirm = None
        if self._reranker is not None:
            confirm = _Confirm(self._reranker, query, deadline.part(_SHARE))
        found = self._queries.find(bucket, query, vector, confirm)
        return found.answer if found is not None else None

    def add(self, bucket: str, query: str, vector: Vector, key: str) -> None:
        """Remember that the answer to `query` lies under `key`."""
        self._queries.add(bucket, query, vector, key)


@dataclass(frozen=True, slots=True)
class _Confirm:
    """A cross-encoder's word that either query is about the other; what it can't say in time is no word."""

    reranker: TextReranker
    query: str
    deadline: Deadline

    def __call__(self, other: str) -> bool:
        try:
            there = self.reranker.score_texts(self.query, [other], self.deadline).scores[0]
            back = self.reranker.score_texts(other, [self.query], self.deadline).scores[0]
        except (DeadlineExceeded, EncoderError, RerankerError, Overloaded):
            return False
        return bool(min(there, back) >= _SURE)
