from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest

from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection
from app.cache.scores import ScoreCache
from app.cache.vectors import VectorCache
from app.config import load_settings
from app.deadline import Deadline
from app.embedding.token_vectors import QueryTokens
from app.passage import Hit
from app.search.cached_models import CachedScoring, QueryVectors, Vector, add_score_cache, partition_of
from app.search.reranking import Scores, Subject
from app.store.filters import Scope

LATER = Deadline.after(60_000)


class Encoder:
    """Counts what it is asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_query(self, text: str) -> Vector:
        self.asked.append(text)
        return np.array([len(text), 1], np.float32)


class TokenReranker:
    """Gives the query's vector and its tokens' of one inference, as late interaction does."""

    name, weight, depth, calibrated, reads_tokens = "tokens", 0.3, 50, False, True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_query(self, text: str) -> tuple[Vector, object] | None:
        self.asked.append(text)
        vectors = np.arange(4, dtype=np.float32).reshape(2, 2)
        return np.array([7, len(text)], np.float32), QueryTokens(vectors, np.array([0.5, 0.5], np.float32))

    def begin(self, query: str, encoded: object | None) -> PairScoring:
        raise AssertionError("not asked here")


class PairReranker(TokenReranker):
    """A cross-encoder: no vectors, probabilities."""

    name, calibrated, reads_tokens = "pairs", True, False

    def encode_query(self, text: str) -> None:
        return None


class PairScoring:
    """Scores a passage by the length of its text; counts them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        return [len(subjects)]

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        self.asked += [subject.hit.text for subject in subjects]
        found = [np.nan if subject.hit.text == "none" else len(subject.hit.text) / 100 for subject in subjects]
        return np.array(found, np.float64)

    def upper_bound(self, fused: float) -> float:
        return fused / 2


@pytest.fixture
def vectors() -> VectorCache:
    settings = load_settings()
    return VectorCache(RedisConnection(settings.redis), EntryCodec(settings.access), entries=10, ttl_s=60)


def subject(text: str, title: str = "") -> Subject:
    return Subject(
        Hit(
            id=text,
            document_id="d",
            source_id="s",
            source_type="text",
            uri="",
            title=title,
            section_heading="",
            text=text,
            page=None,
            position=0,
            timestamp=None,
            topic_tags=(),
            content_hash="h",
            score=1.0,
        )
    )


def test_a_query_is_embedded_once_for_those_who_see_the_same(vectors: VectorCache) -> None:
    encoder = Encoder()
    queries = QueryVectors(encoder, None, vectors)
    first = queries.encode("pump", reranked=False, partition="a", deadline=LATER)
    again = queries.encode("pump", reranked=False, partition="a", deadline=LATER)
    assert first[0].tolist() == again[0].tolist() == [4, 1]
    assert (first[1], again[1], encoder.asked) == (None, None, ["pump"])
    queries.encode("pump", reranked=False, partition="b", deadline=LATER)
    queries.encode("Pump", reranked=False, partition="a", deadline=LATER)
    queries.encode("pump", reranked=False, partition=None, deadline=LATER)
    queries.encode("pump", reranked=False, partition=None, deadline=LATER)
    assert encoder.asked == ["pump", "pump", "Pump", "pump", "pump"]


def test_the_vectors_of_tokens_are_kept_with_it(vectors: VectorCache) -> None:
    encoder, reranker = Encoder(), TokenReranker()
    queries = QueryVectors(encoder, reranker, vectors)
    for _ in range(2):
        vector, encoded = queries.encode("pump", reranked=True, partition="a", deadline=LATER)
        assert vector.tolist() == [7, 4]
        assert isinstance(encoded, QueryTokens)
        assert (encoded.vectors.tolist(), encoded.weights.tolist()) == ([[0, 1], [2, 3]], [0.5, 0.5])
    assert (reranker.asked, encoder.asked) == (["pump"], [])
    assert queries.encode("pump", reranked=False, partition="a", deadline=LATER)[1] is None
    assert encoder.asked == ["pump"]


def test_a_cross_encoder_embeds_nothing(vectors: VectorCache) -> None:
    encoder = Encoder()
    queries = QueryVectors(encoder, PairReranker(), vectors)
    assert queries.encode("pump", reranked=True, partition="a", deadline=LATER)[1] is None
    assert encoder.asked == ["pump"]


def test_who_sees_the_same_shares_and_nobody_else() -> None:
    scopes = [
        Scope("t"),
        Scope("u"),
        Scope("t", frozenset()),
        Scope("t", frozenset({"a"})),
        Scope("t", frozenset({"a", "b"})),
        Scope("t", frozenset({"a,b"})),
    ]
    assert len({partition_of(scope) for scope in scopes}) == len(scopes)
    assert partition_of(Scope("t", frozenset({"b", "a"}), "key:1")) == partition_of(Scope("t", frozenset({"a", "b"})))


def test_scores_are_asked_for_once(valkey_url: str) -> None:
    settings = load_settings(redis_url=valkey_url)
    connection = RedisConnection(settings.redis)
    cache, scoring = ScoreCache(connection, EntryCodec(settings.access), 60), PairScoring()
    cached = add_score_cache(scoring, cache, PairReranker(), "a query", "everybody")
    assert isinstance(cached, CachedScoring)
    deadline = Deadline.after(10_000)
    first = cached.score([subject("one"), subject("none"), subject("three")], deadline)
    second = cached.score([subject("three"), subject("new"), subject("none"), subject("one")], deadline)
    assert scoring.asked == ["one", "none", "three", "new", "none"]
    np.testing.assert_array_equal(first, [0.03, np.nan, 0.05])
    np.testing.assert_array_equal(second, [0.05, 0.03, np.nan, 0.03])
    cached.score([subject("one", title="of another title")], deadline)
    assert scoring.asked[-1] == "one"
    assert (cached.blocks([subject("one")]), cached.upper_bound(0.5)) == ([1], 0.25)
    connection.close()


def test_late_interaction_is_not_cached_and_a_switched_off_cache_is_not_asked() -> None:
    settings = load_settings()
    cache, scoring = ScoreCache(RedisConnection(settings.redis), EntryCodec(settings.access), 60), PairScoring()
    assert add_score_cache(scoring, cache, TokenReranker(), "q", "everybody") is scoring
    assert add_score_cache(scoring, cache, PairReranker(), "q", None) is scoring
    assert add_score_cache(scoring, None, PairReranker(), "q", "everybody") is scoring
