"""Answers to near-identical queries: found by the key of the normal form, unless a veto rejects it.

Two queries with the same normal form (`cache.normal_form`) have the same key, so that finding an earlier one is a
look-up of that key; the similarity of the queries' vectors, and a cross-encoder if there is one, can only reject it.
They rarely reject queries of one form (benchmarks/cache.md): they guard against its mistakes.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np

from app import telemetry
from app.cache.codec import digest
from app.cache.normal_form import differs, question_key
from app.cache.response_cache import ResponseCache
from app.errors import DeadlineExceeded, EncoderError, Overloaded, RerankerError
from app.search.cached_models import QueryVectors, Vector, partition_of
from app.search.request import SearchRequest
from app.search.reranking import Reranker
from app.serving.reads import ReadCall

_SHARE = 0.2
"""Share of the remaining budget for a model elsewhere."""
_SURE = 0.5
"""Probability that a cross-encoder must give to either query as a text about the other."""


class NearAnswers:
    """Finds keys of answers to near-identical queries. Thread-safe."""

    def __init__(
        self, entries: ResponseCache, vectors: QueryVectors, reranker: Reranker | None, threshold: float | None
    ) -> None:
        """Create the finder; nothing is read yet.

        Args:
            entries: cache of the queries, beside the answers.
            reranker: used as a veto if it is a cross-encoder.
            threshold: minimum cosine of two queries; None (an embedding model without a calibration): nothing is found.
        """
        self._entries = entries
        self._vectors = vectors
        self._reranker = reranker if reranker is not None and reranker.calibrated else None
        self._threshold = threshold

    def find(self, bucket: str, call: ReadCall[SearchRequest]) -> str | None:
        """Return the key of an answer to a query of the bucket that asks the same, or None.

        Args:
            bucket: represents scope, options and generation.
        """
        if self._threshold is None:
            return None
        place = _place(bucket, call.query)
        kept = self._entries.get(place) if place is not None else None
        if kept is None:
            telemetry.CACHE_REQUESTS.labels("near", "miss").inc()
            return None
        try:
            earlier, key, vector = str(kept["query"]), str(kept["key"]), _unpacked(kept["vector"])
        except (KeyError, TypeError, ValueError, binascii.Error):  # of another version
            return None
        found = (
            differs(call.query, earlier) is None
            and self._is_similar(call, vector, self._threshold)
            and self._is_confirmed(call, earlier)
        )
        telemetry.CACHE_REQUESTS.labels("near", "hit" if found else "refused").inc()
        return key if found else None

    def add(self, bucket: str, call: ReadCall[SearchRequest], key: str) -> None:
        """Record that the answer to a query of the bucket is under `key`."""
        if self._threshold is None:
            return
        place, vector = _place(bucket, call.query), self._vector(call)
        if place is not None and vector is not None:
            self._entries.put(place, {"query": call.query, "key": key, "vector": _packed(vector)})

    def _is_similar(self, call: ReadCall[SearchRequest], other: Vector, threshold: float) -> bool:
        vector = self._vector(call)
        return vector is not None and vector.shape == other.shape and float(vector @ other) >= threshold

    def _vector(self, call: ReadCall[SearchRequest]) -> Vector | None:
        """Return the query's vector, from the inference for its search; None if the encoder fails."""
        partition = partition_of(call.scope) if call.features.embedding_cache else None
        reranked = call.features.rerank and call.request.rerank is not False
        try:
            deadline = call.deadline.part(_SHARE)
            return self._vectors.encode(call.query, reranked=reranked, partition=partition, deadline=deadline)[0]
        except EncoderError:
            return None

    def _is_confirmed(self, call: ReadCall[SearchRequest], other: str) -> bool:
        """Return whether a cross-encoder says in time that either query is about the other."""
        if self._reranker is None:
            return True
        deadline = call.deadline.part(_SHARE)
        try:
            there = self._reranker.score_texts(call.query, [other], deadline).scores[0]
            back = self._reranker.score_texts(other, [call.query], deadline).scores[0]
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
