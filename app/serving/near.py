"""The step from a query to the answer of a near-identical one: the gate's key, then what may still refuse it.

Two queries that ask the same by the gate (`cache.same_question`) have the same key, so that finding an earlier one is a
look under that key; the similarity of the two queries' vectors, and a cross-encoder where there is one, can only refuse
it. Hardly anything that the gate lets through is refused by them (benchmarks/cache.md): they stand for its mistakes.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import numpy as np

from app import telemetry
from app.cache.entries import digest
from app.cache.responses import ResponseCache
from app.cache.same_question import differs, question_key
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

    @property
    def query(self) -> str:
        """As it was asked."""
        return self.request.query


class NearAnswers:
    """Finds keys of answers to near-identical queries. Thread-safe."""

    def __init__(
        self, entries: ResponseCache, vectors: QueryVectors, reranker: TextReranker | None, threshold: float
    ) -> None:
        """Nothing is read yet.

        Args:
            entries: where the queries are kept, beside the answers.
            vectors: embeds queries.
            reranker: is asked, too, where it is a cross-encoder.
            threshold: cosine that two queries must have at least.
        """
        self._entries = entries
        self._vectors = vectors
        self._reranker = reranker if reranker is not None and reranker.calibrated else None
        self._threshold = threshold

    def find(self, bucket: str, asking: Asking) -> str | None:
        """The key of an answer to a query of the bucket that asks the same, or None.

        Args:
            bucket: names scope, options and generation.
            asking: the query.
        """
        place = _place(bucket, asking.query)
        kept = self._entries.get(place) if place is not None else None
        if kept is None:
            telemetry.CACHE_REQUESTS.labels("near", "miss").inc()
            return None
        try:
            query, key, vector = str(kept["query"]), str(kept["key"]), _unpacked(kept["vector"])
        except (KeyError, TypeError, ValueError, binascii.Error):  # of another version
            return None
        found = (
            differs(asking.query, query) is None and self._similar(asking, vector) and self._confirmed(asking, query)
        )
        telemetry.CACHE_REQUESTS.labels("near", "hit" if found else "refused").inc()
        return key if found else None

    def add(self, bucket: str, asking: Asking, key: str) -> None:
        """Remember that the answer to a query of the bucket lies under `key`."""
        place, vector = _place(bucket, asking.query), self._vector(asking)
        if place is not None and vector is not None:
            self._entries.put(place, {"query": asking.query, "key": key, "vector": _packed(vector)})

    def _similar(self, asking: Asking, other: Vector) -> bool:
        vector = self._vector(asking)
        return vector is not None and vector.shape == other.shape and float(vector @ other) >= self._threshold

    def _vector(self, asking: Asking) -> Vector | None:
        """The query's vector, of the inference that its search uses; None where the encoder fails."""
        partition = partition_of(asking.scope) if asking.features.embedding_cache else None
        reranked = asking.features.rerank and asking.request.rerank is not False
        try:
            return self._vectors.encode(asking.query, reranked=reranked, partition=partition)[0]
        except EncoderError:
            return None

    def _confirmed(self, asking: Asking, other: str) -> bool:
        """A cross-encoder's word that either query is about the other; what it can't say in time is no word."""
        if self._reranker is None:
            return True
        deadline = asking.deadline.part(_SHARE)
        try:
            there = self._reranker.score_texts(asking.query, [other], deadline).scores[0]
            back = self._reranker.score_texts(other, [asking.query], deadline).scores[0]
        except (DeadlineExceeded, EncoderError, RerankerError, Overloaded):
            return False
        return bool(min(there, back) >= _SURE)


def _place(bucket: str, query: str) -> str | None:
    question = question_key(query)
    return f"braid:near:{digest(bucket, question)}" if question is not None else None


def _packed(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def _unpacked(text: str) -> Vector:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
