"""Caches around the models of a search: query vectors, and scores of cross-encoders.

Both are separate for callers with different access (`partition`), so that the time of a search does not reveal what
other callers searched for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.cache.codec import digest
from app.cache.scores import ScoreCache
from app.cache.vectors import VectorCache
from app.deadline import Deadline
from app.embedding.text_encoder import TextEncoder
from app.embedding.token_vectors import QueryTokens
from app.passage import embedding_text
from app.search.reranking import Reranker, Scores, Scoring, Subject
from app.store.filters import Scope

Vector = npt.NDArray[np.float32]


def partition_of(scope: Scope) -> str:
    """Return a name shared by callers with the same access."""
    return digest(scope.tenant, None if scope.principals is None else sorted(scope.principals))


class QueryVectors:
    """Embeds queries, by the reranker if it needs the same inference, else by the embedding model. Thread-safe."""

    def __init__(self, encoder: TextEncoder, reranker: Reranker | None, cache: VectorCache | None = None) -> None:
        self._encoder = encoder
        self._reranker = reranker
        self._cache = cache

    def encode(
        self, text: str, *, reranked: bool, partition: str | None, deadline: Deadline
    ) -> tuple[Vector, object | None]:
        """Return the query's vector and the reranker's part of the same inference.

        Args:
            reranked: whether the reranker will run.
            partition: name of the callers who share cached values; None: the cache is not used.
            deadline: when an encoder elsewhere must have answered.

        Raises:
            EncoderError.
        """
        reranker = self._reranker if reranked else None
        if self._cache is None or partition is None:
            return self._encode(text, reranker, deadline)
        names = [self._encoder.name, reranker.name if reranker is not None else None]
        key = f"braid:embedding:{digest(partition, names, text)}"
        if (found := self._cache.get(key)) is not None:
            return (found[0], QueryTokens(found[1], found[2])) if len(found) == 3 else (found[0], None)
        vector, encoded = self._encode(text, reranker, deadline)
        self._cache.put(
            key, [vector, encoded.vectors, encoded.weights] if isinstance(encoded, QueryTokens) else [vector]
        )
        return vector, encoded

    def _encode(self, text: str, reranker: Reranker | None, deadline: Deadline) -> tuple[Vector, object | None]:
        encoded = reranker.encode_query(text) if reranker is not None else None
        return encoded if encoded is not None else (self._encoder.within(deadline).encode_query(text), None)


class CachedScoring:
    """A cross-encoder's scoring of one query, limited to passages without a cached score."""

    def __init__(self, scoring: Scoring, cache: ScoreCache, key: str) -> None:
        self._scoring = scoring
        self._cache = cache
        self._key = key

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """Return the cross-encoder's block sizes."""
        return self._scoring.blocks(subjects)

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Return scores of a block, shape (n,). Raises as the cross-encoder's."""
        texts = [_name_of(subject) for subject in subjects]
        known = self._cache.get(self._key, texts)
        missing = [place for place, text in enumerate(texts) if text not in known]
        scores = np.array([known.get(text, np.nan) for text in texts], np.float64)
        if missing:
            fresh = self._scoring.score([subjects[place] for place in missing], deadline)
            scores[missing] = fresh
            made = zip(missing, fresh.tolist(), strict=True)
            self._cache.put(self._key, {texts[place]: score for place, score in made if np.isfinite(score)})
        return scores

    def upper_bound(self, fused: float) -> float:
        """Return the cross-encoder's upper bound."""
        return self._scoring.upper_bound(fused)


def add_score_cache(
    scoring: Scoring, cache: ScoreCache | None, reranker: Reranker, query: str, partition: str | None
) -> Scoring:
    """Add a cache to `scoring`, if it pays: late interaction is cheaper than a Redis look-up."""
    if cache is None or partition is None or reranker.reads_tokens or not reranker.calibrated:
        return scoring
    return CachedScoring(scoring, cache, f"braid:rerank:{digest(partition, reranker.name, query)}")


def _name_of(subject: Subject) -> str:
    hit = subject.hit
    return digest(embedding_text(hit.title, hit.section_heading, hit.text))
