"""The index generation: counters in Redis that every write raises, so that caches know what is old.

Two a tenant, and two for all tenants together (another tuning, an index that takes another's place). `writes` counts
everything that changed what searches find; `revocations` what took something away from somebody: a deletion, a
narrower ACL, an alias swap. A counter that is not there begins at the time in milliseconds, so that one that Redis lost
(evicted, flushed) never comes back to a number that it had before.
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
        raised = self._connection.ask(lambda client: _raise(client, tenant, revoking), None)
        if raised is None and self._connection.configured:
            with self._lock:
                self._owed[tenant] = self._owed.get(tenant, False) or revoking
        return raised

    def advance_all(self) -> None:
        """Raise it for all tenants: what is searched, or how, became another."""
        self._connection.ask(lambda client: _raise(client, _ALL, True), None)

    def _settle(self, tenant: str) -> bool:
        """Raise what could not be raised before; whether nothing is owed now."""
        with self._lock:
            revoking = self._owed.get(tenant)
        if revoking is None:
            return True
        if self._connection.ask(lambda client: _raise(client, tenant, revoking), None) is None:
            return False
        with self._lock:
            self._owed.pop(tenant, None)
        return True


def _read(client: redis.Redis, tenant: str) -> Generation | None:
    keys = [*_keys(tenant), *_keys(_ALL)]
    values = client.mget(keys)
    if any(value is None for value in values):
        now = int(time.time() * 1000)
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.set(key, now, nx=True)
            pipe.mget(keys)
            values = pipe.execute()[-1]
    return _sum(values)


def _raise(client: redis.Redis, tenant: str, revoking: bool) -> Generation | None:
    now = int(time.time() * 1000)
    writes, revocations = _keys(tenant)
    with client.pipeline(transaction=True) as pipe:
        for key in [writes, revocations] if revoking else [writes]:
            pipe.set(key, now, nx=True)
            pipe.incr(key)
        pipe.execute()
    return _read(client, tenant)


def _sum(values: list[Any]) -> Generation | None:
    """Of the tenant's and all tenants' counters; None where somebody put something else there."""
    try:
        numbers = [int(value) for value in values]
    except (TypeError, ValueError):
        return None
    return Generation(numbers[0] + numbers[2], numbers[1] + numbers[3])
