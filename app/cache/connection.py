"""The Redis connection of all caches. An unavailable Redis is never an error: reads then find nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import redis

from app.addresses import mask_passwords
from app.breaker import Breaker, BreakerOpen
from app.config.retrieval import RedisSettings
from app.errors import ConfigurationError

Found = TypeVar("Found")

_REST_S = 2.0
"""Seconds that a failed Redis is not called, so that its absence costs requests nothing."""
_TIMEOUT_S = 0.25
_NO_REDIS = (TypeError, ValueError, AttributeError, LookupError)
"""Errors of unexpected answers, here or in the client: the server speaks (almost) the protocol, but behaves
differently."""


class RedisConnection:
    """A pool of connections, or none if no Redis is configured. Thread-safe."""

    def __init__(self, options: RedisSettings) -> None:
        """Create the pool; nothing is sent yet. Raises ConfigurationError for an invalid address."""
        self._breaker = Breaker("Redis", failures=2, rest_s=_REST_S, label="redis")
        self._client: redis.Redis | None = None
        if options.url is not None:
            try:
                self._client = redis.Redis.from_url(
                    options.url,
                    socket_timeout=_TIMEOUT_S,
                    socket_connect_timeout=_TIMEOUT_S,
                    retry=None,
                )
            except ValueError as error:
                raise ConfigurationError(
                    f"BRAID_REDIS_URL: {mask_passwords(str(error))}; write redis://host:port/number"
                ) from error

    @property
    def configured(self) -> bool:
        """Return whether a Redis is configured."""
        return self._client is not None

    @property
    def available(self) -> bool:
        """Return whether Redis would be called: it is configured and did not fail recently."""
        return self._client is not None and self._breaker.rested

    def ask(self, question: Callable[[redis.Redis], Found], default: Found) -> Found:
        """Return the result of `question`; `default` if Redis is unavailable, fails, or holds a
        value of another type.
        """
        if self._client is None:
            return default
        try:
            with self._breaker.calling() as call:
                try:
                    found = question(self._client)
                except redis.ResponseError:  # another type under our key, or out of memory: Redis is available, though
                    call.ok()
                    return default
                except (redis.RedisError, OSError, *_NO_REDIS):
                    call.failed()
                    return default
                call.ok()
                return found
        except BreakerOpen:
            return default

    def alive(self) -> bool:
        """Return whether Redis answers now, regardless of recent failures."""
        try:
            return self._client is not None and bool(self._client.ping())
        except (redis.RedisError, OSError):
            return False

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
