"""The connection to Redis that all caches share. Redis being away is never an error: what was asked is then unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import redis

from app.addresses import masked
from app.breaker import Breaker, BreakerOpen
from app.config import Settings
from app.errors import ConfigurationError

Found = TypeVar("Found")

_REST_S = 2.0
"""How long a Redis that failed is left alone, so that its absence costs a request nothing."""
_TIMEOUT_S = 0.25
_NO_REDIS = (TypeError, ValueError, AttributeError, LookupError)
"""What an answer of another type ends in, here or in the client: what listens there speaks the protocol, or nearly, but
does not do what it is asked."""


class RedisConnection:
    """A pool of connections, or none where no Redis is named. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is sent yet. Raises ConfigurationError where the address is none."""
        self._breaker = Breaker("Redis", failures=2, rest_s=_REST_S, label="redis")
        self._client: redis.Redis | None = None
        if settings.redis_url is not None:
            try:
                self._client = redis.Redis.from_url(
                    settings.redis_url,
                    socket_timeout=_TIMEOUT_S,
                    socket_connect_timeout=_TIMEOUT_S,
                    retry=None,
                )
            except ValueError as error:
                raise ConfigurationError(
                    f"BRAID_REDIS_URL: {masked(str(error))}; write redis://host:port/number"
                ) from error

    @property
    def configured(self) -> bool:
        """Whether a Redis is named."""
        return self._client is not None

    @property
    def available(self) -> bool:
        """Whether it would be asked: it is named, and did not fail a moment ago."""
        return self._client is not None and self._breaker.rested

    def ask(self, question: Callable[[redis.Redis], Found], default: Found) -> Found:
        """What `question` finds; `default` where Redis is away, fails, or holds something of another type there."""
        if self._client is None:
            return default
        try:
            with self._breaker.calling() as call:
                try:
                    found = question(self._client)
                except redis.ResponseError:  # another type under our key, or out of memory: it is there, though
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
        """Whether Redis answers now, whatever it did a moment ago."""
        try:
            return self._client is not None and bool(self._client.ping())
        except (redis.RedisError, OSError):
            return False

    def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            self._client.close()
