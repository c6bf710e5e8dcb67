"""Cached reranker scores, by model, query and text."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import redis

from app import telemetry
from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection

_CACHE = "rerank"
_SCORE = struct.Struct("<d")


class ScoreCache:
    """One hash in Redis per query, with a score per text. Thread-safe; empty without Redis."""

    def __init__(self, connection: RedisConnection, codec: EntryCodec, ttl_s: int) -> None:
        self._connection = connection
        self._codec = codec
        self._ttl_s = ttl_s

    def get(self, key: str, texts: Sequence[str]) -> dict[str, float]:
        """Return the known scores of `texts` (digests), under the key of a model and query."""
        if not texts:
            return {}
        nothing: Sequence[object] = [None] * len(texts)
        values = self._connection.ask(lambda client: list[object](client.hmget(key, list(texts))), nothing)
        found = {}
        for text, value in zip(texts, values, strict=True):
            score = self._read(key, text, value)
            if score is not None:
                found[text] = score
        telemetry.CACHE_REQUESTS.labels(_CACHE, "hit").inc(len(found))
        telemetry.CACHE_REQUESTS.labels(_CACHE, "miss").inc(len(texts) - len(found))
        return found

    def put(self, key: str, scores: Mapping[str, float]) -> None:
        """Store `scores` of texts under the key of a model and query."""
        items: list[str | bytes] = []
        for text, score in scores.items():
            items += [text, self._codec.seal(f"{key}/{text}", _SCORE.pack(score)) or b""]
        if not items:
            return

        def question(client: redis.Redis) -> None:
            with client.pipeline(transaction=False) as pipe:
                pipe.hset(key, items=items)
                pipe.expire(key, self._ttl_s)
                pipe.execute()

        self._connection.ask(question, None)

    def _read(self, key: str, text: str, value: object) -> float | None:
        """Return the number that `put` wrote, or None."""
        if value is None:
            return None
        payload = self._codec.open(f"{key}/{text}", value)
        if payload is None or len(payload) != _SCORE.size:
            telemetry.CACHE_REQUESTS.labels(_CACHE, "corrupt").inc()
            return None
        score: float = _SCORE.unpack(payload)[0]
        return score
