"""The index generation: counters in Redis that every write raises, so that caches know what is old.

Two a tenant, and two for all tenants together (another tuning, an index that takes another's place). `writes` counts
everything that changed what searches find; `revocations` what took something away from somebody: a deletion, a
narrower ACL, an alias swap. A counter that is not there begins at the time in milliseconds, so that one that Redis lost
(evicted, flushed) never comes back to a number that it had before. One that holds something else is replaced.

Caches fail closed: a counter that Redis refuses to raise (it is full) is deleted, which Redis never refuses, so that
no process finds what was cached before.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import redis

from app.cache.connection import RedisConnection

_ALL = "*"
"""No tenant's name can be this."""
_KINDS = ("index-generation", "revocations")
_DIGITS = 15
"""Times in milliseconds have 13; more would not fit into the integers of every client (2**53)."""
_REPLACE = f"""
local value = redis.pcall('get', KEYS[1])
if type(value) ~= 'string' or #value > {_DIGITS} or not string.match(value, '^%d+$') then
  redis.call('set', KEYS[1], ARGV[1])
end"""
"""Unless another process has replaced it meanwhile."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The counters as one request saw them; both only ever rise."""

    writes: int
    revocations: int


def _keys(tenant: str) -> list[str]:
    return [f"braid:{tenant}:{kind}" for kind in _KINDS]


class IndexGeneration:
    """Reads and raises the counters. Redis being away is not an error: the generation is then unknown (None)."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._owed: dict[str, bool] = {}
        """Tenants whose generation could not be raised, and whether it was a revocation."""

    def current(self, tenant: str) -> Generation | None:
        """The generation now; None when Redis is away or not configured, or misses a write of this process."""
        if self._owed and not self._settle(tenant):
            return None
        return self._connection.ask(lambda client: _read(client, tenant), None)

    def advance(self, tenant: str, *, revoking: bool) -> Generation | None:
        """Raise it after a write became visible; None when Redis is away (it is raised later then) or not configured.

        Args:
            tenant: whose passages were written.
            revoking: whether somebody may find less than before: passages were deleted, or have fewer readers.
        """
        raised = self._raised(tenant, revoking)
        if raised is None and self._connection.configured:
            with self._lock:
                self._owed[tenant] = self._owed.get(tenant, False) or revoking
        return raised

    def advance_all(self) -> None:
        """Raise it for all tenants: what is searched, or how, became another."""
        self._connection.ask(lambda client: _raise(client, _ALL, True), None)

    def _raised(self, tenant: str, revoking: bool) -> Generation | None:
        raised = self._connection.ask(lambda client: _raise(client, tenant, revoking), None)
        if raised is None and self._connection.ask(lambda client: [client.delete(*_keys(tenant))], None):
            raised = self._connection.ask(lambda client: _raise(client, tenant, revoking), None)
        return raised

    def _settle(self, tenant: str) -> bool:
        """Raise what could not be raised before; whether nothing is owed now."""
        with self._lock:
            revoking = self._owed.get(tenant)
        if revoking is None:
            return True
        if self._raised(tenant, revoking) is None:
            return False
        with self._lock:
            self._owed.pop(tenant, None)
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


def _raise(client: redis.Redis, tenant: str, revoking: bool) -> Generation | None:
    now = int(time.time() * 1000)
    writes, revocations = _keys(tenant)
    with client.pipeline(transaction=True) as pipe:
        for key in [writes, revocations] if revoking else [writes]:
            pipe.set(key, now, nx=True)
            pipe.incr(key)
        pipe.execute()
    return _read(client, tenant)


def _is_count(value: Any) -> bool:
    """Whether it is a counter's value, and not lost, or something that somebody else put there."""
    return isinstance(value, bytes) and len(value) <= _DIGITS and value.isdigit()
