"""Cached answers in Redis: whole ones, under keys that name everything they depend on."""

from __future__ import annotations

from app import telemetry
from app.cache.connection import RedisConnection
from app.cache.entries import EntryCodec, Json


class ResponseCache:
    """Answers by key. Thread-safe; without Redis it is empty."""

    def __init__(self, connection: RedisConnection, codec: EntryCodec, ttl_s: int) -> None:
        self._connection = connection
        self._codec = codec
        self._ttl_s = ttl_s

    def get(self, key: str) -> Json | None:
        """The answer under `key`; None where there is none, or not one of ours."""
        data = self._connection.ask(lambda client: client.get(key), None)
        if data is None:
            return None
        found = self._codec.unpack(key, data)
        if found is None:
            telemetry.CACHE_REQUESTS.labels("responses", "corrupt").inc()
        return found

    def put(self, key: str, value: Json) -> bool:
        """Keep `value` for the time to live; whether it was kept."""
        data = self._codec.pack(key, value)
        if data is None:
            return False
        return self._connection.ask(lambda client: bool(client.set(key, data, ex=self._ttl_s)), False)
