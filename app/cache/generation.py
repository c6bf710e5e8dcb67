"""The index generation: counters in Redis that every write increments, so that caches detect outdated entries.

There are two per tenant, and two for all tenants together (another tuning, a replaced index). `writes` counts
everything that changes search results; `revocations` counts losses of access: a deletion, a narrower ACL, an alias
swap. A missing counter starts at the time in milliseconds, so that a counter that Redis lost (evicted, flushed) never
repeats an earlier number. A counter with an invalid value is replaced.

Caches fail closed: a counter that Redis can't increment (it is full) is deleted, which always works, so that no process
finds older entries.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import redis

from app.cache.connection import RedisConnection

_ALL = "*"
"""Key of all tenants; not a valid tenant name."""
_KINDS = ("index-generation", "revocations")
_DIGITS = 15
"""Times in milliseconds have 13 digits; more would not fit into every client's integers (2**53)."""
_REPLACE = f"""
local value = redis.pcall('get', KEYS[1])
if type(value) ~= 'string' or #value > {_DIGITS} or not string.match(value, '^%d+$') then
  redis.call('set', KEYS[1], ARGV[1])
end"""
"""Script that replaces an invalid counter, unless another process has replaced it meanwhile."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The counters as one request saw them; both only increase."""

    writes: int
    revocations: int


def _keys(tenant: str) -> list[str]:
    return [f"braid:{tenant}:{kind}" for kind in _KINDS]


class IndexGeneration:
    """Reads and increments the counters. If Redis is unavailable the generation is unknown (None), which is not an
    error.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._pending: dict[str, bool] = {}
        """Tenants whose increment is pending, and whether it is a revocation."""

    def current(self, tenant: str) -> Generation | None:
        """Return the current generation; None if Redis is unavailable, not configured, or lacks a write of this
        process.
        """
        if self._pending and not self._flush_pending(tenant):
            return None
        return self._connection.ask(lambda client: _read(client, tenant), None)

    def advance(self, tenant: str, *, revoking: bool) -> Generation | None:
        """Increment after a write became visible; None if Redis is unavailable (retried later) or not configured.

        Args:
            tenant: tenant of the written passages.
            revoking: True if somebody may find less: passages were deleted, or have fewer readers.
        """
        raised = self._increment(tenant, revoking)
        if raised is None and self._connection.configured:
            with self._lock:
                self._pending[tenant] = self._pending.get(tenant, False) or revoking
        return raised

    def advance_all(self) -> None:
        """Increment for all tenants: the searched index or the ranking changed."""
        self._connection.ask(lambda client: _increment_keys(client, _ALL, True), None)

    def _increment(self, tenant: str, revoking: bool) -> Generation | None:
        raised = self._connection.ask(lambda client: _increment_keys(client, tenant, revoking), None)
        if raised is None and self._connection.ask(lambda client: [client.delete(*_keys(tenant))], None):
            raised = self._connection.ask(lambda client: _increment_keys(client, tenant, revoking), None)
        return raised

    def _flush_pending(self, tenant: str) -> bool:
        """Retry pending increments; return whether none is pending."""
        with self._lock:
            revoking = self._pending.get(tenant)
        if revoking is None:
            return True
        if self._increment(tenant, revoking) is None:
            return False
        with self._lock:
            self._pending.pop(tenant, None)
        return True


def _read(client: redis.Redis, tenant: str) -> Generation | None:
    keys = [*_keys(tenant), *_keys(_ALL)]
    values: list[Any] = client.mget(keys)
    if wrong := [key for key, value in zip(keys, values, strict=True) if not _is_count(value)]:
        now = int(time.time() * 1000)
        for key in wrong:
            client.eval(_REPLACE, 1, key, now)
        values = client.mget(keys)
    if not all(_is_count(value) for value in values):
        return None
    writes, revocations, all_writes, all_revocations = (int(value) for value in values)
    return Generation(writes + all_writes, revocations + all_revocations)


def _increment_keys(client: redis.Redis, tenant: str, revoking: bool) -> Generation | None:
    now = int(time.time() * 1000)
    writes, revocations = _keys(tenant)
    with client.pipeline(transaction=True) as pipe:
        for key in [writes, revocations] if revoking else [writes]:
            pipe.set(key, now, nx=True)
            pipe.incr(key)
        pipe.execute()
    return _read(client, tenant)


def _is_count(value: Any) -> bool:
    """Return whether `value` is a valid counter, neither missing nor foreign."""
    return isinstance(value, bytes) and len(value) <= _DIGITS and value.isdigit()
