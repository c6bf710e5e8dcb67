"""Cached answers in Redis: complete ones, under keys that cover everything they depend on."""

from __future__ import annotations

from app import telemetry
from app.cache.codec import EntryCodec, Json
from app.cache.connection import RedisConnection


class ResponseCache:
    """Answers by key. Thread-safe; empty without Redis."""

    def __init__(self, connection: RedisConnection, codec: EntryCodec, ttl_s: int) -> None:
        self._connection = connection
        self._codec = codec
        self._ttl_s = ttl_s

    def get(self, key: str) -> Json | None:
        """Return the answer under `key`; None if there is no valid one."""
        data = self._connection.ask(lambda client: client.get(key), None)
        if data is None:
            return None
        found = self._codec.unpack(key, data)
        if found is None:
            telemetry.CACHE_REQUESTS.labels("responses", "corrupt").inc()
        return found

    def put(self, key: str, value: Json) -> bool:
        """Store `value` for the time to live; return whether it was stored."""
        data = self._codec.pack(key, value)
        if data is None:
            return False
        return self._connection.ask(lambda client: bool(client.set(key, data, ex=self._ttl_s)), False)
