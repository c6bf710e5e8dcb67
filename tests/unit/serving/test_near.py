from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import pytest

from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection
from app.cache.response_cache import ResponseCache
from app.config import Settings, load_settings
from app.deadline import Deadline
from app.errors import EncoderError, RerankerUnavailable
from app.features import ALL_ON
from app.search.cached_models import QueryVectors, Vector
from app.search.request import SearchRequest
from app.search.reranking import TextScores
from app.serving.near import NearAnswers, _place
from app.serving.reads import ReadCall
from app.store.filters import Scope


class Encoder:
    """All queries are alike but those that are told to be otherwise; counts them."""

    name = "alike"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.turned: set[str] = set()
        self.fails = False

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_query(self, text: str) -> Vector:
        self.asked.append(text)
        if self.fails:
            raise EncoderError("it failed")
        return np.array([0, 1] if text in self.turned else [1, 0], np.float32)


class CrossEncoder:
    """Gives each pair the probability that it was told."""

    name, weight, depth, calibrated, reads_tokens = "pairs", 0.5, 20, True, False

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = list(probabilities)

    def encode_query(self, text: str) -> None:
        return None

    def begin(self, query: str, encoded: object | None) -> None:
        raise AssertionError("not asked here")

    def score_texts(
        self, query: str, texts: Sequence[str], deadline: Deadline, *, max_tokens: int | None = None
    ) -> TextScores:
        if not self.probabilities:
            raise RerankerUnavailable("away")
        return TextScores(np.array([self.probabilities.pop(0)]), 0)

    def close(self) -> None:
        return


def near_query(query: str) -> ReadCall[SearchRequest]:
    return ReadCall(SearchRequest.model_validate({"query": query}), Scope("t"), ALL_ON, Deadline.after(10_000))


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return load_settings(redis_url=valkey_url)


@pytest.fixture
def entries(settings: Settings) -> Iterator[ResponseCache]:
    connection = RedisConnection(settings.redis)
    yield ResponseCache(connection, EntryCodec(settings.access), 60)
    connection.close()


@pytest.fixture
def bucket() -> str:
    return secrets.token_hex(8)


def near(entries: ResponseCache, encoder: Encoder, reranker: CrossEncoder | None = None) -> NearAnswers:
    return NearAnswers(entries, QueryVectors(encoder, None), reranker, 0.8)  # type: ignore[arg-type]


def test_the_same_question_is_found_and_another_is_not(entries: ResponseCache, bucket: str) -> None:
    encoder = Encoder()
    found = near(entries, encoder)
    found.add(bucket, near_query("what is the refund policy?"), "its answer")
    assert found.find(bucket, near_query("Please tell me what the refund policy is")) == "its answer"
    assert found.find("another bucket", near_query("what is the refund policy")) is None
    asked = len(encoder.asked)
    for other in ("what is not the refund policy?", "what was the refund policy?", "refund policy 2"):
        assert found.find(bucket, near_query(other)) is None, other
    assert len(encoder.asked) == asked  # what the gate does not find is not embedded


def test_vectors_that_differ_refuse(entries: ResponseCache, bucket: str) -> None:
    encoder = Encoder()
    found = near(entries, encoder)
    found.add(bucket, near_query("refund policy"), "its answer")
    encoder.turned.add("the refund policy")
    assert found.find(bucket, near_query("the refund policy")) is None
    assert found.find(bucket, near_query("Refund policy")) == "its answer"
    encoder.fails = True
    assert found.find(bucket, near_query("Refund policy")) is None
    found.add(bucket, near_query("another policy"), "not kept without a vector")
    encoder.fails = False
    assert found.find(bucket, near_query("another policy")) is None


@pytest.mark.parametrize(
    ("probabilities", "served"), [((0.9, 0.6), True), ((0.9, 0.4), False), ((0.4, 0.9), False), ((), False)]
)
def test_a_cross_encoder_can_refuse(
    entries: ResponseCache, bucket: str, probabilities: tuple[float, ...], served: bool
) -> None:
    found = near(entries, Encoder(), CrossEncoder(*probabilities))
    found.add(bucket, near_query("refund policy"), "its answer")
    assert (found.find(bucket, near_query("the refund policy")) is not None) == served


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"query": "refund policy"},
        {"query": "refund policy", "key": "k", "vector": "no base64!"},
        {"query": "refund policy", "key": "k", "vector": base64.b64encode(b"abc").decode()},
        {"query": "refund policy", "key": "k", "vector": base64.b64encode(bytes(6)).decode()},
        {"query": "another policy", "key": "k", "vector": base64.b64encode(np.array([1, 0], "<f2").tobytes()).decode()},
        {"query": 7, "key": None, "vector": None},
    ],
)
def test_entries_that_are_not_as_ours_are_passed_over(
    entries: ResponseCache, bucket: str, kept: dict[str, object]
) -> None:
    place = _place(bucket, "refund policy")
    assert place is not None
    entries.put(place, kept)
    assert near(entries, Encoder()).find(bucket, near_query("the refund policy")) is None


def test_queries_that_can_not_be_read_are_never_near(entries: ResponseCache, bucket: str) -> None:
    found = near(entries, Encoder())
    long = "refund " * 200
    found.add(bucket, near_query(long), "not kept")
    assert found.find(bucket, near_query(long)) is None


def test_without_a_calibration_nothing_is_kept_or_found(entries: ResponseCache, bucket: str) -> None:
    calibrated, encoder = near(entries, Encoder()), Encoder()
    uncalibrated = NearAnswers(entries, QueryVectors(encoder, None), None, None)  # type: ignore[arg-type]
    uncalibrated.add(bucket, near_query("refund policy"), "its answer")
    assert calibrated.find(bucket, near_query("the refund policy")) is None
    calibrated.add(bucket, near_query("refund policy"), "its answer")
    assert uncalibrated.find(bucket, near_query("the refund policy")) is None
    assert encoder.asked == []
