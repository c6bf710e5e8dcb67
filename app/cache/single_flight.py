"""Single flight: one caller computes what several request at once; the others wait, each within its own limit.

Within a process they wait for an event, between processes for a lock in Redis that expires by itself, so that a process
that dies while computing delays others by at most the lease. A caller that waited in vain computes by itself.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from app.cache.codec import Json
from app.cache.connection import RedisConnection

_LEASE_MS = 15_000
_POLL_S = 0.01
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


@dataclass(slots=True)
class _Flight:
    done: threading.Event = field(default_factory=threading.Event)
    value: Json | None = None


class Lease:
    """The sole right to compute a value. Call `finish` on every exit path; only the first call counts."""

    def __init__(self, end: Callable[[Json | None], None] | None = None) -> None:
        self._end = end

    def finish(self, value: Json | None) -> None:
        """Give `value` to the waiting callers; None lets them compute by themselves. Further calls do nothing."""
        end, self._end = self._end, None
        if end is not None:
            end(value)


class SingleFlight:
    """Computations in progress. Thread-safe."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    def join(self, key: str, find: Callable[[], Json | None], wait_s: float) -> tuple[Json | None, Lease]:
        """Return another caller's value under `key`, or the lease to compute it.

        Args:
            key: key of the computation.
            find: looks up a value that another process may have stored meanwhile.
            wait_s: seconds to wait for others.

        Returns:
            The value, if it came in time; else None, and the caller must compute, and finish the lease on every path.
        """
        until = time.monotonic() + wait_s
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                mine = self._flights[key] = _Flight()
        if flight is not None:
            flight.done.wait(wait_s)
            return flight.value, Lease()
        token = secrets.token_hex(8)
        while not self._acquire(key, token):
            if (found := find()) is not None:
                self._deliver(key, mine, found)
                return found, Lease()
            if time.monotonic() + _POLL_S >= until:
                break
            time.sleep(_POLL_S)
        else:
            # another process may have stored it between the caller's look-up and the lock
            if (found := find()) is not None:
                self._release(key, token)
                self._deliver(key, mine, found)
                return found, Lease()

        def end(value: Json | None) -> None:
            self._release(key, token)
            self._deliver(key, mine, value)

        return None, Lease(end)

    def _deliver(self, key: str, flight: _Flight, value: Json | None) -> None:
        flight.value = value
        with self._lock:
            self._flights.pop(key, None)
        flight.done.set()

    def _acquire(self, key: str, token: str) -> bool:
        """Take the lock; also True if Redis is unavailable, since there is nobody to wait for."""

        def question(client: redis.Redis) -> bool:
            return bool(client.set(f"{key}:lock", token, nx=True, px=_LEASE_MS))

        return self._connection.ask(question, True)

    def _release(self, key: str, token: str) -> None:
        def question(client: redis.Redis) -> Any:
            return client.eval(_RELEASE, 1, f"{key}:lock", token)

        self._connection.ask(question, None)
