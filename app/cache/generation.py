"""The index generation: a counter in Redis that every write of this service raises, so that caches know what is old."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from app.config import Settings

_PAUSE_S = 5.0
"""How long a Redis that failed is left alone, so that its absence costs a request nothing."""


def _key(tenant: str) -> str:
    return f"braid:{tenant}:index-generation"


class IndexGeneration:
    """Reads and raises the counter. Redis being away is not an error: the generation is then unknown (None)."""

    def __init__(self, settings: Settings) -> None:
        self._paused_until = 0.0
        self._client: redis.Redis | None = None
        if settings.redis_url is not None:
            self._client = redis.Redis.from_url(
                settings.redis_url, socket_timeout=0.25, socket_connect_timeout=0.25, retry=None
            )

    @property
    def configured(self) -> bool:
        return self._client is not None

    def current(self, tenant: str) -> int | None:
        """The generation now; 0 before the first write; None when Redis is away or not configured."""
        return self._ask(lambda client: int(client.get(_key(tenant)) or 0))

    def advance(self, tenant: str) -> int | None:
        """Raise it by one after a write became visible; None when Redis is away or not configured."""
        return self._ask(lambda client: int(client.incr(_key(tenant))))

    def alive(self) -> bool:
        """Whether Redis answers now."""
        self._paused_until = 0.0
        return self._ask(lambda client: int(bool(client.ping()))) == 1

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _ask(self, question: Callable[[redis.Redis], int]) -> int | None:
        if self._client is None or time.monotonic() < self._paused_until:
            return None
        try:
            return question(self._client)
        except (redis.RedisError, ValueError):
            self._paused_until = time.monotonic() + _PAUSE_S
            return None
